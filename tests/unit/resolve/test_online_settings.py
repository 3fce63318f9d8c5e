"""Settings: what they are, which are proposed, and what pins leave of them."""

import pytest

from autotune.errors import SpecError
from autotune.resolve.online_setting import (
    SAFE,
    Setting,
    checked_settings,
    most_promising,
    proposed_settings,
    rivals_of,
)


def test_prefetching_needs_workers():
    with pytest.raises(ValueError, match="prefetch_factor needs num_workers >= 1, got prefetch_factor=2"):
        Setting(prefetch_factor=2)


def test_spellings_of_one_behaviour_are_folded():
    assert Setting(num_workers=2).canonical(has_accelerator=False).prefetch_factor == 2
    assert Setting(num_workers=2, pin_memory=True).canonical(has_accelerator=False).pin_memory is False
    assert Setting(pin_memory=True).canonical(has_accelerator=True).pin_memory is True


def test_arguments_are_those_that_torch_takes():
    assert SAFE.dataloader_arguments(persistent=True) == {"num_workers": 0, "pin_memory": False}
    with_workers = Setting(num_workers=2, prefetch_factor=3).dataloader_arguments(persistent=True)
    assert with_workers == {
        "num_workers": 2,
        "pin_memory": False,
        "prefetch_factor": 3,
        "persistent_workers": True,
    }


def test_fewer_workers_then_fewer_batches_cost_less():
    ordered = [SAFE, Setting(num_workers=1), Setting(num_workers=1, prefetch_factor=4), Setting(num_workers=2)]
    assert sorted({*ordered}, key=lambda setting: setting.cost) == ordered


@pytest.mark.parametrize("cpu_count", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("has_accelerator", [False, True])
def test_proposals_are_few_differ_and_leave_out_the_resolved_one(cpu_count, has_accelerator):
    for base in (SAFE, Setting(num_workers=cpu_count, prefetch_factor=2)):
        proposed = proposed_settings(base, cpu_count=cpu_count, has_accelerator=has_accelerator)
        rivals = most_promising(rivals_of(base, proposed, pins={}, has_accelerator=has_accelerator))
        assert 1 <= len(rivals) <= 5
        assert len(set(rivals)) == len(rivals)
        assert base not in rivals
        assert all(rival.num_workers <= cpu_count for rival in rivals)
        assert has_accelerator or not any(rival.pin_memory for rival in rivals)


def test_on_machines_with_many_cpus_no_more_than_16_workers_are_proposed():
    proposed = proposed_settings(SAFE, cpu_count=128, has_accelerator=True)
    assert max(setting.num_workers for setting in proposed) == 16
    resolved = Setting(num_workers=32, prefetch_factor=2)
    deeper = proposed_settings(resolved, cpu_count=128, has_accelerator=False)[-1]
    assert (deeper.num_workers, deeper.prefetch_factor) == (32, 4)


def test_pins_are_kept_by_every_rival():
    proposed = proposed_settings(SAFE, cpu_count=4, has_accelerator=True)
    by_workers = rivals_of(SAFE, proposed, pins={"num_workers": 0}, has_accelerator=True)
    assert by_workers == [Setting(pin_memory=True)]
    by_prefetch = rivals_of(SAFE, proposed, pins={"prefetch_factor": 4}, has_accelerator=False)
    assert by_prefetch == [Setting(num_workers=4, prefetch_factor=4)]


def test_mappings_become_settings_and_take_over_pins():
    given = checked_settings([{"num_workers": 2}, {"num_workers": 0}], {"prefetch_factor": 4})
    assert given == [Setting(num_workers=2, prefetch_factor=4), SAFE]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (2, "a setting is a mapping of num_workers, prefetch_factor, pin_memory, got 2"),
        ({"workers": 2}, "workers: Extra inputs"),
        ({"num_workers": -1}, "num_workers: .* greater than or equal to 0, got -1"),
        ({"num_workers": 0, "prefetch_factor": 2}, "prefetch_factor needs num_workers >= 1"),
        ({"num_workers": 2, "pin_memory": True}, r"must keep what is pinned \(pin_memory=False\), got 2 workers"),
    ],
)
def test_what_is_no_setting_or_breaks_a_pin_is_refused(given, told):
    with pytest.raises(SpecError, match=told):
        checked_settings([given], {"pin_memory": False})
