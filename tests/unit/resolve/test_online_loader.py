"""What `online_loader` gives: the plain loader's batches, and a setting that is found while they are given."""

import logging
import multiprocessing
import os
import random
import struct
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from online_datasets import Drawn, OneFile, Plain, assert_same, online, plain_epochs, report_in_group, seeded
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

import autotune
from autotune.errors import SpecError
from autotune.resolve.online_setting import SAFE, Setting

pytestmark = pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning")


@pytest.mark.parametrize("arguments", [{}, {"shuffle": True}, {"shuffle": True, "drop_last": True}])
def test_several_epochs_are_those_of_the_plain_loader_while_settings_are_tried(arguments):
    loader = online(Drawn(77), generator=seeded(), **arguments)
    found = [list(loader) for _ in range(3)]
    assert len(loader.report.segments) > 3
    assert {segment.setting.num_workers for segment in loader.report.segments} >= {0, 1}
    assert_same(found, plain_epochs(Drawn(77), 3, generator=seeded(), **arguments))


def test_epochs_are_those_of_best_loader_with_workers_that_are_kept():
    loader = online(Drawn(60), shuffle=True, num_workers=2, generator=seeded(), settings=[{"prefetch_factor": 1}])
    plain = autotune.best_loader(Drawn(60), batch_size=2, shuffle=True, num_workers=2, generator=seeded())
    assert_same([list(loader) for _ in range(3)], [list(plain) for _ in range(3)])


def test_turned_off_it_is_the_plain_loader():
    loader = online(Plain(10), enabled=False)
    assert type(loader) is DataLoader
    assert len(list(loader)) == 5


def test_it_looks_like_a_loader():
    dataset = Plain(11)
    generator = seeded()
    loader = online(dataset, shuffle=True, drop_last=True, generator=generator)
    assert (len(loader), loader.batch_size, loader.drop_last) == (5, 2, True)
    assert loader.dataset is dataset
    assert loader.generator is generator
    assert isinstance(loader.sampler, RandomSampler)
    assert isinstance(loader.batch_sampler, BatchSampler)
    assert loader.collate_fn([torch.tensor(1)]).shape == (1,)
    assert (loader.num_workers, loader.prefetch_factor, loader.pin_memory) == (0, None, False)


def test_nothing_is_tried_where_the_step_takes_the_time():
    loader = online(Plain(60), segment_batches=5)
    for _ in loader:
        time.sleep(0.02)
    assert loader.report.outcome == "nothing_to_gain"
    assert [segment.setting for segment in loader.report.segments] == [SAFE, SAFE]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_a_step_that_waits_for_slow_samples_gets_workers():
    for _ in range(3):  # a machine that is busy with something else may leave it undecided, and then nothing changes
        loader = online(Drawn(400, slow_s=0.004), settings=[{"num_workers": 4}], segment_batches=8)
        found = list(loader)
        report = loader.report
        if report.outcome == "gain":
            break
        assert (report.outcome, report.setting, loader.num_workers) == ("undecided", SAFE, 0)
    assert (report.outcome, report.setting.num_workers, loader.num_workers) == ("gain", 4, 4)
    assert report.ratio.low > 1.01
    assert report.pairs >= 3
    assert_same([found, list(loader)], plain_epochs(Drawn(400), 2))


def test_segments_and_decision_are_logged_and_reported(caplog):
    with caplog.at_level(logging.INFO, "autotune.resolve.online_loading"):
        loader = online(Drawn(200, slow_s=0.002), settings=[{"num_workers": 2}], segment_batches=4)
        assert loader.report.outcome == "trying"
        list(loader)
    logged = [record.getMessage() for record in caplog.records if record.name.endswith("online_loading")]
    assert logged == str(loader.report).splitlines()
    assert logged[-1].startswith(("gain: 2 workers", "undecided: 0 workers"))
    assert 0 < loader.report.switching_s < loader.report.tried_s


@pytest.mark.parametrize("count", [0, 1])
def test_an_empty_or_tiny_dataset_is_given_as_it_is(count):
    assert len(list(online(Plain(count)))) == count


def test_an_order_without_a_length_is_read_and_nothing_is_tried():
    class Odd:
        def __iter__(self):
            return iter(range(1, 12, 2))

    loader = online(Plain(12), sampler=Odd())
    assert [batch[:, 0].tolist() for batch in loader] == [[1, 3], [5, 7], [9, 11]]
    assert "tells no length" in loader.report.why


def test_a_sampler_and_a_batch_sampler_of_the_caller_keep_their_order():
    by_sampler = online(Plain(60), sampler=RandomSampler(range(60), generator=seeded()))
    expected = DataLoader(Plain(60), batch_size=2, sampler=RandomSampler(range(60), generator=seeded()))
    assert [one[:, 0].tolist() for one in by_sampler] == [one[:, 0].tolist() for one in expected]
    batches = BatchSampler(SequentialSampler(range(60)), 3, drop_last=False)
    by_batches = online(Plain(60), batch_sampler=batches, batch_size=None)
    assert [one[:, 0].tolist() for one in by_batches] == [list(batch) for batch in batches]
    assert by_batches.report.segments


def test_what_one_process_opened_is_not_shared_with_its_workers(tmp_path):
    path = tmp_path / "numbers"
    path.write_bytes(b"".join(struct.pack("<I", 7 * index) for index in range(400)))
    dataset = OneFile(path, 400)
    loader = online(dataset, settings=[{"num_workers": 2}])
    reads = iter(loader)
    given = []
    for batch in reads:
        given += batch.flatten().tolist()
        if loader.report.outcome == "trying":
            assert dataset.file is None
    assert given == [7 * index for index in range(400)]
    assert loader.report.outcome != "trying"


def test_the_consumers_own_random_numbers_are_left_alone():
    def drawn(loader):
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002  # the global one is what a caller may draw from
        for _ in loader:
            pass
        return torch.rand(()).item(), random.random(), np.random.rand()  # noqa: NPY002

    with_generator = {"shuffle": True, "generator": seeded()}
    assert drawn(online(Drawn(77), **with_generator)) == drawn(DataLoader(Drawn(77), **with_generator))


def test_workers_of_different_segments_draw_different_numbers():
    loader = online(WorkerDraws(200), settings=[{"num_workers": 1, "prefetch_factor": 1}])
    drawn = [value for batch in loader for value, worker in batch.tolist() if worker >= 0]
    assert len(drawn) > 20
    assert len(set(drawn)) == len(drawn)


class WorkerDraws(Plain):
    def __getitem__(self, index):
        info = torch.utils.data.get_worker_info()
        return torch.tensor([torch.rand(()).item(), -1 if info is None else info.id], dtype=torch.float64)


def test_an_error_of_the_step_is_the_callers_and_ends_the_workers():
    loader = online(Drawn(100), num_workers=2, settings=[{"prefetch_factor": 1}])
    before = set(multiprocessing.active_children())

    def train():
        for number, _ in enumerate(loader):
            if number == 3:
                raise RuntimeError("the step failed")

    with pytest.raises(RuntimeError, match="the step failed"):
        train()
    assert not set(multiprocessing.active_children()) - before
    assert not any(segment.failure for segment in loader.report.segments)


def test_no_batch_is_kept_while_the_next_one_is_made():
    class Made:
        alive, most = 0, 0

        def __init__(self):
            Made.most = max(Made.most, Made.alive)
            Made.alive += 1

        def __del__(self):
            Made.alive -= 1

    loader = online(Plain(60), segments=1, collate_fn=lambda _: Made())
    reads = iter(loader)
    while (batch := next(reads, None)) is not None:
        del batch
    assert len(loader.report.segments) == 1
    assert Made.most == 0


def test_what_there_is_no_shared_memory_for_is_left_out_and_said_so(caplog):
    with caplog.at_level(logging.INFO, "autotune.resolve.online_loading"):
        loader = online(Plain(400), settings=[{"num_workers": 1, "prefetch_factor": 10**15}])
        assert len(list(loader)) == 200
    assert {segment.setting for segment in loader.report.segments} == {SAFE}
    (line,) = loader.report.left_out
    assert line.startswith(f"1 workers, prefetch {10**15} is left out: ")
    assert "memory" in line
    assert line in caplog.text
    assert line in str(loader.report)


def test_processes_that_train_together_load_as_resolved_and_try_nothing(caplog):
    with caplog.at_level(logging.INFO, "autotune.resolve.online_loading"):
        loaders = [online(Drawn(200, slow_s=0.001), rank=rank, world_size=2) for rank in range(2)]
    read = [int(value) for loader in loaders for batch in loader for value in batch[:, 0]]
    assert sorted(read) == list(range(200))
    for loader in loaders:
        assert (loader.report.outcome, loader.report.segments, loader.setting) == ("undecided", (), SAFE)
        assert "train together wait for each other in every step" in loader.report.why
    assert caplog.text.count("train together") == 2


def test_a_process_group_that_begins_after_the_loader_was_made_ends_trying(tmp_path):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as ranks:
        reports = list(ranks.map(report_in_group, range(2), [str(tmp_path / "store")] * 2))
    for outcome, why, segments in reports:
        assert (outcome, segments) == ("undecided", 0)
        assert "train together" in why


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"segments": 0}, "segments must be a whole number from 1 on, got 0"),
        ({"epochs": True}, "epochs must be a whole number from 1 on, got True"),
        ({"segment_batches": 1.5}, "segment_batches must be a whole number from 1 on, got 1.5"),
        ({"order": "streaming"}, "needs samples by index, got order='streaming'; use best_loader"),
        ({"in_order": False}, "keeps the order of samples, got in_order=False"),
        ({"loader_class": DataLoader}, "loads by torch's DataLoader, got a loader_class"),
        ({"settings": [{"num_workers": 2}], "num_workers": 1}, "must keep what is pinned"),
        ({"shuffle": True, "sampler": [0]}, "sampler excludes shuffle"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, told):
    with pytest.raises(SpecError, match=told):
        online(Plain(10), **arguments)


def test_an_iterable_dataset_is_refused_unless_it_is_turned_off():
    class Numbers(IterableDataset):
        def __iter__(self):
            return iter(range(6))

    with pytest.raises(SpecError, match=r"needs samples by index, got the iterable dataset .*Numbers; use best_loader"):
        online(Numbers())
    assert len(list(online(Numbers(), enabled=False))) == 3


def test_samples_are_read_where_the_setting_says():
    loader = online(Plain(400), settings=[{"num_workers": 1}], segment_batches=2)
    readers = {process for batch in loader for process in batch[:, 1].tolist()}
    assert os.getpid() in readers
    assert len(readers) > 1


@pytest.mark.parametrize("argument", [{"timeout": 60}, {"multiprocessing_context": "fork"}])
def test_arguments_that_need_workers_are_kept_for_settings_with_workers(argument):
    loader = online(Plain(200), settings=[{"num_workers": 1}], segment_batches=2, **argument)
    assert [int(index) for batch in loader for index in batch[:, 0]] == list(range(200))
    assert {segment.setting.num_workers for segment in loader.report.segments} == {0, 1}
    assert not any(segment.failure for segment in loader.report.segments)


def test_a_pinned_field_is_varied_by_no_setting():
    loader = autotune.online_loader(Drawn(200), batch_size=2, num_workers=1, segment_batches=1)
    list(loader)
    assert {segment.setting.num_workers for segment in loader.report.segments} == {1}
    assert loader.report.base == Setting(num_workers=1, prefetch_factor=2)
