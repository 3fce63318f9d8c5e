"""What windows say together, for any windows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.constants import FUTILITY_SHARE, FUTILITY_WINDOWS, PRECISION_SHARE
from autotune.measure.batches import SampleCounter
from autotune.measure.scoring import Stretch, excess_s, mean_ramp_s, rate_after_ramp, score
from autotune.measure.window import counted, epoch_rate, is_futile, is_precise, is_unsteady, rate_interval
from autotune.spec import Window

seconds = st.floats(0.01, 100.0)
samples = st.integers(1, 10**6)


def make_window(duration, count, *, aside=False):
    return Window(seconds=duration, samples=count, batches=1, wait_s=0.0, set_aside=aside)


windows = st.lists(st.builds(make_window, seconds, samples), min_size=1, max_size=30)
rates = st.floats(0.1, 1e7)


@given(windows)
def test_the_interval_contains_the_mean_and_the_mean_is_all_samples_over_all_seconds(found):
    interval = rate_interval(found)
    assert interval.low <= interval.mean <= interval.high
    total = sum(window.samples for window in found) / sum(window.seconds for window in found)
    assert interval.mean == pytest.approx(total)


@given(windows, st.floats(0.01, 100.0))
def test_a_machine_twice_as_fast_gives_twice_the_rate_and_interval(found, factor):
    faster = [make_window(window.seconds / factor, window.samples) for window in found]
    one, other = rate_interval(found), rate_interval(faster)
    assert other.mean == pytest.approx(one.mean * factor)
    assert other.high - other.mean == pytest.approx((one.high - one.mean) * factor, rel=1e-6, abs=1e-6 * other.mean)


@given(seconds, samples, st.integers(2, 20))
def test_equal_windows_are_precise_and_steady(duration, count, number):
    found = [make_window(duration, count)] * number
    assert rate_interval(found).half_width_share == pytest.approx(0, abs=1e-6)
    assert is_precise(found) == (number >= 3)
    assert not is_unsteady(found)


@given(windows)
def test_precise_means_a_narrow_interval_of_at_least_three_windows(found):
    if is_precise(found):
        assert len(found) >= 3
        assert rate_interval(found).half_width_share <= PRECISION_SHARE


@given(windows, rates)
def test_futility_never_stops_a_run_that_could_reach_the_incumbent(found, incumbent):
    if is_futile(found, incumbent):
        assert len(found) >= FUTILITY_WINDOWS
        assert rate_interval(found).high < FUTILITY_SHARE * incumbent < incumbent


@given(windows)
def test_nothing_is_futile_without_an_incumbent_or_against_a_slower_one(found):
    assert not is_futile(found, None)
    assert not is_futile(found, rate_interval(found).mean)


@given(st.integers(2, 10), rates, st.floats(1.2, 10.0))
def test_a_step_between_the_halves_is_unsteady(half, rate, factor):
    slow, fast = make_window(1.0, max(1, round(rate))), make_window(1.0 / factor, max(1, round(rate)))
    assert is_unsteady([slow] * half + [fast] * half)
    assert is_unsteady([fast] * half + [slow] * half)


@given(st.integers(1, 10**7), rates, st.floats(0, 1000))
def test_the_score_is_the_rate_of_an_epoch_with_its_ramp(epoch, steady, ramp):
    rate = epoch_rate(epoch, steady, ramp)
    assert rate == pytest.approx(epoch / (epoch / steady + ramp))
    assert 0 < rate <= steady * (1 + 1e-9)


@given(windows, rates, st.floats(0, 10), st.integers(1, 10**6))
def test_whole_epochs_are_scored_as_they_are_and_others_with_their_ramp(found, steady, ramp, epoch):
    whole = score(found, steady_samples_per_s=steady, ramp_s=ramp, epoch_samples=None)
    assert whole == rate_interval(found).mean
    other = score(found, steady_samples_per_s=steady, ramp_s=ramp, epoch_samples=epoch)
    assert other == epoch_rate(epoch, steady, ramp)


def test_no_windows_score_zero():
    assert score([], steady_samples_per_s=1.0, ramp_s=0.0, epoch_samples=1) == 0.0


@given(st.lists(st.tuples(seconds, samples), min_size=1), rates)
def test_a_ramp_is_never_negative(parts, steady):
    ramps = [Stretch(seconds=duration, samples=count, batches=1) for duration, count in parts]
    ramp = mean_ramp_s(ramps, steady)
    assert ramp >= 0
    assert ramp == pytest.approx(max(0.0, sum(excess_s(part, steady) for part in ramps) / len(ramps)))


def test_a_ramp_is_not_told_apart_where_hardly_a_batch_follows_it():
    assert rate_after_ramp([Stretch(seconds=1.0, samples=8, batches=1)]) is None
    assert rate_after_ramp([Stretch(seconds=1.0, samples=80, batches=10)]) == 80


def test_windows_set_aside_are_left_out():
    kept, aside = make_window(1, 1), make_window(1, 9, aside=True)
    assert counted([kept, aside]) == [kept]


def test_one_window_is_never_precise_and_no_window_is_an_error():
    assert not is_precise([make_window(1, 1)])
    with pytest.raises(ValueError, match="at least one window"):
        rate_interval([])


@given(st.integers(1, 64), st.integers(1, 64))
def test_samples_are_counted_in_any_nesting(size, batch_size):
    import numpy as np
    import torch

    tensor = torch.zeros(size, 3)
    for batch in (tensor, {"a": tensor}, np.zeros((size, 2)), {"a": {"b": tensor}}):
        # rows beyond a full batch are no samples
        assert SampleCounter(batch_size)(batch) == (size if size <= batch_size else None)
    assert SampleCounter(batch_size)([torch.zeros(batch_size, 3), torch.zeros(batch_size)]) == batch_size
    assert SampleCounter(batch_size)([torch.zeros(7, 9)] * batch_size) == batch_size
    assert SampleCounter(batch_size)("text") is None
