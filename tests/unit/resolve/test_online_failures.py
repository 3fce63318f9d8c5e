"""Settings that fail while training: no sample is lost or given twice, and training goes on."""

import logging
import multiprocessing
import os
import signal

import pytest
import torch
from online_datasets import Broken, Deadly, Drawn, NoSharedMemory, Plain

import autotune
from autotune.resolve.online_deaths import deaths_held
from autotune.resolve.online_setting import SAFE

pytestmark = [
    pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning"),
    pytest.mark.fault,
]


def online(dataset, **arguments):
    given = {"batch_size": 2, "segment_batches": 4, "settings": [{"num_workers": 2}], **arguments}
    return autotune.online_loader(dataset, **given)


def indices(batches):
    return [int(index) for batch in batches for index in batch[:, 0]]


def test_a_worker_that_dies_in_a_segment_costs_no_sample(caplog):
    loader = online(Deadly(200, deadly=26))
    with caplog.at_level(logging.WARNING, "autotune.resolve.online_loading"):
        assert indices(loader) == list(range(200))
    failed = [segment for segment in loader.report.segments if segment.failure]
    assert [segment.setting.num_workers for segment in failed] == [2]
    assert "worker" in failed[0].failure
    assert "failed: RuntimeError" in caplog.text
    assert loader.setting == SAFE
    assert indices(loader) == list(range(200))


def test_without_shared_memory_loading_goes_on_in_the_process():
    loader = online(NoSharedMemory(200), num_workers=2, settings=[{"num_workers": 2, "prefetch_factor": 4}])
    assert indices(loader) == list(range(200))
    assert (loader.report.outcome, loader.setting) == ("fallback", SAFE)
    assert "shared memory" in loader.report.why
    assert indices(loader) == list(range(200))


def test_workers_of_the_setting_that_was_found_may_die_too():
    loader = online(Plain(100), num_workers=1, settings=[{"num_workers": 1, "prefetch_factor": 1}], segments=1)
    assert indices(loader) == list(range(100))
    assert loader.setting.num_workers == 1
    given = []
    for number, batch in enumerate(loader):
        given.append(batch)
        if number == 10:
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
                child.join()
    assert indices(given) == list(range(100))
    assert (loader.report.outcome, loader.setting) == ("fallback", SAFE)
    assert not multiprocessing.active_children()


def test_a_worker_killed_while_the_step_runs_does_not_reach_the_step():
    loader = online(Plain(200), num_workers=1, settings=[{"prefetch_factor": 4}])
    given = []
    for number, batch in enumerate(loader):
        given.append(batch)
        if number == 2:
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
                child.join()
            torch.rand(10).sum()
    assert indices(given) == list(range(200))
    assert loader.report.outcome == "fallback"


def test_workers_that_die_in_a_pass_inside_another_one_cost_neither_a_sample():
    loader = online(Plain(200), num_workers=1, settings=[{"num_workers": 1, "prefetch_factor": 1}], segments=1)
    list(loader)
    assert loader.report.outcome == "undecided"
    outer = iter(loader)
    outside = [next(outer)]
    theirs = set(multiprocessing.active_children())
    inside = []
    for number, batch in enumerate(loader):
        inside.append(batch)
        if number == 5:
            for child in set(multiprocessing.active_children()) - theirs:
                os.kill(child.pid, signal.SIGKILL)
                child.join()
    assert indices(inside) == list(range(200))
    assert loader.report.outcome == "fallback"
    assert indices(outside + list(outer)) == list(range(200))
    assert indices(loader) == list(range(200))


@pytest.fixture
def told():
    """Numbers of the signals that a handler of SIGCHLD was called with."""
    numbers = []

    def handler(number, _):
        numbers.append(number)

    before = signal.signal(signal.SIGCHLD, handler)
    yield numbers
    assert signal.getsignal(signal.SIGCHLD) is handler
    signal.signal(signal.SIGCHLD, before)


def test_deaths_are_told_when_the_step_is_done_and_the_handler_is_put_back(told):
    with deaths_held(workers=True):
        os.kill(os.getpid(), signal.SIGCHLD)
        assert told == []
    assert told == [signal.SIGCHLD]


def test_an_error_of_the_step_goes_before_a_death(told):
    def step():
        with deaths_held(workers=True):
            os.kill(os.getpid(), signal.SIGCHLD)
            raise KeyError

    with pytest.raises(KeyError):
        step()
    assert told == []


def test_deaths_are_told_when_the_last_of_several_steps_is_done(told):
    one, other = deaths_held(workers=True), deaths_held(workers=True)
    one.__enter__()
    other.__enter__()
    os.kill(os.getpid(), signal.SIGCHLD)
    one.__exit__(None, None, None)
    assert told == []
    with deaths_held(workers=True):
        other.__exit__(None, None, None)
        assert told == []
    assert told == [signal.SIGCHLD]
    os.kill(os.getpid(), signal.SIGCHLD)
    assert told == [signal.SIGCHLD] * 2


def test_several_loaders_at_a_time_leave_the_handler_as_it_was():
    loaders = [online(Plain(20), num_workers=1, settings=[{"num_workers": 1, "prefetch_factor": 1}]) for _ in "ab"]
    list(torch.utils.data.DataLoader(Plain(2), num_workers=1))  # torch sets its handler once a process
    before = signal.getsignal(signal.SIGCHLD)
    assert [indices(pair[:1]) for pair in zip(*loaders, strict=True)] == [[two, two + 1] for two in range(0, 20, 2)]
    assert signal.getsignal(signal.SIGCHLD) is before


def test_without_workers_signals_are_left_alone(told):
    with deaths_held(workers=False):
        os.kill(os.getpid(), signal.SIGCHLD)
        assert told == [signal.SIGCHLD]


class Unsized(dict):
    """A batch that cannot tell what is in it."""

    def values(self):
        raise TypeError("nobody knows my size")


def test_a_batch_whose_size_cannot_be_told_is_not_lost():
    loader = online(
        Plain(60), num_workers=1, settings=[{"num_workers": 1, "prefetch_factor": 4}],
        collate_fn=lambda samples: Unsized(indices=[int(sample[0]) for sample in samples]),
    )  # fmt: skip
    assert [index for batch in loader for index in batch["indices"]] == list(range(60))
    assert "nobody knows my size" in loader.report.why


@pytest.mark.fault(12)
@pytest.mark.parametrize("pins", [{}, {"num_workers": 2}])
def test_a_broken_sample_is_the_callers_error_and_no_settings_fault(pins):
    loader = online(Broken(60), **pins, settings=[{"num_workers": 2, "prefetch_factor": 4}])
    given = []

    def read():
        given.extend(loader)

    with pytest.raises(ValueError, match="sample is broken"):
        read()
    assert loader.report.outcome != "fallback"
    assert not any(segment.failure for segment in loader.report.segments)


def test_an_augmented_epoch_is_whole_after_a_failure():
    class DeadlyDrawn(Drawn):
        def decode(self, raw):
            if raw[0][0] == 26 and torch.utils.data.get_worker_info() is not None:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().decode(raw)

    loader, dataset = online(DeadlyDrawn(200)), Drawn(200)
    for epoch in range(2):
        dataset.set_epoch(epoch)
        found = torch.cat(list(loader))
        assert torch.equal(found, torch.stack([dataset[index] for index in range(200)]))
    assert any(segment.failure for segment in loader.report.segments)
