"""Passes that are left early, lie inside each other, or go on where others ended."""

import multiprocessing
from itertools import islice

import pytest
import torch
from online_datasets import Drawn, Plain, assert_same, online, plain_epochs, seeded
from torch.utils.data import SequentialSampler

from autotune.errors import SpecError
from autotune.resolve.online_setting import SAFE

pytestmark = pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning")


def test_trying_goes_on_in_the_next_epoch_where_one_is_too_short():
    loader = online(Drawn(40), epochs=3, segments=20, settings=[{"num_workers": 1, "prefetch_factor": 1}])
    list(loader)
    first = len(loader.report.segments)
    list(loader)
    assert loader.report.segments[-1].epoch == 1 or loader.report.outcome != "trying"
    list(loader)
    assert len(loader.report.segments) >= first
    assert loader.report.outcome != "trying"


def test_an_epoch_that_is_left_early_is_one_in_which_settings_were_tried():
    loader = online(Drawn(400), segment_batches=1)
    for epoch in range(2):
        for _ in islice(loader, 12):
            pass
        assert loader.report.segments
        assert (loader.report.outcome, loader.setting) == ("undecided", SAFE)
        assert {segment.epoch for segment in loader.report.segments} == {0}, epoch


def test_looking_at_a_batch_before_training_is_no_epoch():
    loader = online(Drawn(400))
    for _ in range(2):
        next(iter(loader))
    assert loader.report.outcome == "trying"
    list(loader)
    assert len(loader.report.segments) > 3


def test_where_every_pass_is_left_at_once_trying_ends_as_well():
    loader = online(Drawn(400))
    for _ in range(3):
        next(iter(loader))
    assert (loader.report.outcome, loader.report.segments) == ("undecided", ())


def test_an_epoch_that_is_left_behind_enough_blocks_is_decided_by_them():
    loader = online(Drawn(600, slow_s=0.004), settings=[{"num_workers": 2}], segment_batches=8)
    for _ in loader:
        if len(loader.report.segments) == 7:  # the look, and three blocks of two
            break
    assert loader.report.outcome in {"gain", "undecided", "nothing_to_gain"}
    assert "ended after 3 blocks" in loader.report.why
    assert_same([list(loader)], plain_epochs(Drawn(600), 1, first=1))


def test_with_a_cache_a_glance_fills_nothing():
    loader = online(Drawn(80), cache="memory", epochs=1)
    next(iter(loader))
    list(loader)
    assert loader.report.segments == ()
    list(loader)
    assert {segment.epoch for segment in loader.report.segments} == {2}


def test_epochs_too_short_to_tell_anything_leave_the_resolved_setting():
    loader = online(Plain(4), settings=[{"num_workers": 2}], segment_batches=4)
    found = list(loader)
    assert len(found) == 2
    assert (loader.report.outcome, loader.setting) == ("undecided", SAFE)
    assert "too few batches" in loader.report.why


def test_leaving_an_epoch_early_ends_its_workers():
    loader = online(Drawn(100), num_workers=2, settings=[{"prefetch_factor": 1}])
    before = set(multiprocessing.active_children())
    for number, _ in enumerate(loader):
        if number == 1:
            assert set(multiprocessing.active_children()) - before
            break
    assert not set(multiprocessing.active_children()) - before
    list(loader)
    for _ in loader:
        break
    assert not set(multiprocessing.active_children()) - before


def test_an_epoch_after_one_that_was_left_early_is_whole_and_the_next_one():
    dataset, expected = Drawn(60), plain_epochs(Drawn(60), 2)
    loader = online(dataset)
    for _ in zip(range(7), loader, strict=False):
        pass
    assert_same([list(loader)], expected[1:])


def test_two_passes_at_a_time_are_both_whole():
    dataset = Plain(60)
    loader = online(dataset)
    pairs = [(one[:, 0].tolist(), other[:, 0].tolist()) for one, other in zip(loader, loader, strict=True)]
    assert pairs == [([index, index + 1],) * 2 for index in range(0, 60, 2)]


def test_a_look_at_another_pass_leaves_the_state_of_the_one_under_way():
    loader = online(Drawn(60), shuffle=True, generator=seeded())
    reads = iter(loader)
    taken = [next(reads) for _ in range(7)]
    state = loader.state_dict()
    next(iter(loader))
    again = loader.state_dict()
    assert (again["epoch"], again["position"]) == (state["epoch"], state["position"]) == (0, 7)
    assert torch.equal(again["generators"][0], state["generators"][0])
    later = online(Drawn(60), shuffle=True, generator=seeded(99))
    later.load_state_dict(again)
    assert_same([taken + list(later)], plain_epochs(Drawn(60), 1, shuffle=True, generator=seeded()))


def test_setting_the_epoch_sets_that_of_the_augmentation():
    loader = online(Drawn(60), shuffle=True, generator=seeded())
    loader.set_epoch(4)
    assert_same([list(loader)], plain_epochs(Drawn(60), 1, first=4, shuffle=True, generator=seeded()))
    own = online(Drawn(60), sampler=SequentialSampler(range(60)))
    own.set_epoch(4)
    assert_same([list(own)], plain_epochs(Drawn(60), 1, first=4))


@pytest.mark.parametrize("taken", [0, 1, 13, 40])
@pytest.mark.parametrize("pins", [{}, {"num_workers": 1}])
def test_a_resumed_run_goes_on_behind_the_last_batch(taken, pins):
    arguments = {"shuffle": True, **pins, "settings": [{"prefetch_factor": 1, "num_workers": 1}]}
    whole = online(Drawn(100), generator=seeded(), **arguments)
    expected = [batch for _ in range(3) for batch in whole]
    first = online(Drawn(100), generator=seeded(), **arguments)
    found = list(first)
    state = first.state_dict()
    for number, batch in enumerate(first):
        if number == taken:
            break
        found.append(batch)
        state = first.state_dict()
    later = online(Drawn(100), generator=seeded(99), **arguments)
    later.load_state_dict(state)
    found += list(later)
    found += list(later)
    assert_same([found], [expected])
    assert later.report.outcome == "resumed"
    assert later.setting == first.setting


def test_a_state_survives_a_checkpoint(tmp_path):
    loader = online(Drawn(60), shuffle=True, generator=seeded())
    taken = []
    for batch in loader:
        taken.append(batch)
        if len(taken) == 5:
            torch.save(loader.state_dict(), tmp_path / "state")
            break
    later = online(Drawn(60), shuffle=True, generator=seeded(99))
    later.load_state_dict(torch.load(tmp_path / "state"))
    whole = list(online(Drawn(60), shuffle=True, generator=seeded()))
    assert_same([taken + list(later)], [whole])


READ = []


class Noted(Plain):
    """Notes what is read in this process."""

    def __getitem__(self, index):
        READ.append(index)
        return super().__getitem__(index)


def test_a_pass_begins_at_a_position_without_reading_what_is_before_it():
    READ.clear()
    loader = online(Noted(60), settings=[], segment_batches=2)
    loader.load_state_dict({"position": 20})
    assert [batch[:, 0].tolist() for batch in loader] == [[index, index + 1] for index in range(40, 60, 2)]
    assert list(range(40, 60)) == READ
    assert len(list(loader)) == 30, "later passes are whole"


def test_a_position_leaves_epoch_generators_and_what_was_found_as_they_are():
    loader = online(Drawn(100), shuffle=True, generator=seeded())
    list(loader)
    found = loader.report
    loader.load_state_dict({**loader.state_dict(), "position": 13})
    assert loader.report == found
    loader.load_state_dict({"position": 13})
    assert loader.report == found
    expected = plain_epochs(Drawn(100), 2, shuffle=True, generator=seeded())[1]
    assert_same([list(loader)], [expected[13:]])


def test_settings_are_tried_on_the_batches_behind_the_position_alone():
    loader = online(Drawn(100, slow_s=0.001))
    loader.load_state_dict({"position": 30})
    assert loader.state_dict()["position"] == 30
    assert len(list(loader)) == 20
    assert 0 < sum(segment.batches for segment in loader.report.segments) <= 20


@pytest.mark.parametrize("position", [-1, 31, True, 2.0, None])
def test_a_position_that_the_loader_does_not_have_is_refused(position):
    loader = online(Plain(60))
    with pytest.raises(SpecError, match="position must be a whole number from 0 on and at most the 30 batches"):
        loader.load_state_dict({"position": position})
    assert len(list(loader)) == 30


def test_with_a_cache_settings_are_tried_once_it_is_filled():
    loader = online(Drawn(80), cache="memory", epochs=1)
    first = list(loader)
    assert loader.report.segments == ()
    second = list(loader)
    assert {segment.epoch for segment in loader.report.segments} == {1}
    assert_same([first, second], plain_epochs(Drawn(80), 2))
