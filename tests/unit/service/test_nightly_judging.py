"""What the figures of a check mean."""

import math

from hypothesis import given
from hypothesis import strategies as st
from registry_values import decision

from autotune.registry import SAFE_DEFAULT
from autotune.service.nightly.baseline import Baseline
from autotune.service.nightly.judging import Figures, drift, loss, rate_change
from autotune.spec import Interval, LoaderConfig

BEFORE = decision()
RECORD = Baseline.of(decision())


def interval(low, high):
    return Interval(mean=math.sqrt(low * high), low=low, high=high)


def steady(rate, runs=5, spread=0.02):
    return [rate * (1 + spread * (number % 2 * 2 - 1)) for number in range(runs)]


def test_what_holds_is_neither_a_loss_nor_drift():
    figures = Figures(against_default=interval(1.9, 2.1), against_before=interval(1.2, 1.4), rates=steady(200.0))
    assert loss(figures, BEFORE) is None
    assert drift(RECORD, figures) is None


def test_slower_than_the_default_beyond_noise_goes_to_what_was_before_or_to_the_default():
    figures = Figures(against_default=interval(0.7, 0.9), against_before=interval(0.3, 0.4))
    found = loss(figures, BEFORE)
    assert found.to == BEFORE.key
    assert "0.79 (0.70 to 0.90)" in found.reason
    assert "what was deployed before" in found.reason
    assert loss(figures, None).to == SAFE_DEFAULT
    worse = Figures(against_default=interval(0.7, 0.9), before_against_default=interval(0.5, 0.6))
    assert loss(worse, BEFORE).to == SAFE_DEFAULT


def test_slower_than_what_it_took_the_place_of_is_a_loss_even_where_it_beats_the_default():
    figures = Figures(against_default=interval(1.4, 1.6), against_before=interval(0.8, 0.95))
    assert loss(figures, BEFORE).to == BEFORE.key


def test_an_interval_that_reaches_one_is_no_loss():
    assert loss(Figures(against_default=interval(0.5, 1.0)), BEFORE) is None
    assert loss(Figures(against_default=interval(0.5, 0.995)), BEFORE) is None
    assert loss(Figures(), BEFORE) is None


def test_what_fails_is_a_loss_where_the_default_runs():
    found = loss(Figures(failure="device memory, out of it", default_runs=True), None)
    assert (found.to, "device memory" in found.reason) == (SAFE_DEFAULT, True)
    assert loss(Figures(failure="bad data, no file", default_runs=False), BEFORE) is None


def test_nothing_is_rolled_back_to_what_fails_as_well():
    figures = Figures(failure="device memory, out of it", before_fails=True)
    assert loss(figures, BEFORE).to == SAFE_DEFAULT


def test_what_could_not_be_prepared_or_failed_once_is_no_loss():
    assert loss(Figures(hindered="disk space, no room for the archive"), BEFORE) is None
    assert loss(Figures(failed_once="timed out, no batch"), BEFORE) is None


def test_a_ratio_has_drifted_where_the_intervals_do_not_meet():
    assert "was 2.00 (1.90 to 2.10)" in drift(RECORD, Figures(against_default=interval(1.5, 1.7)))
    assert drift(RECORD, Figures(against_default=interval(2.3, 2.5))) is not None
    assert drift(RECORD, Figures(against_default=interval(1.5, 1.95))) is None
    tiny = decision(ratio=Interval(mean=2.0, low=1.999, high=2.001))
    assert drift(Baseline.of(tiny), Figures(against_default=Interval(mean=2.01, low=2.005, high=2.015))) is None


def test_the_ratio_of_a_decision_that_deploys_the_default_is_of_another_configuration():
    one = decision(config=LoaderConfig(), samples_per_s=None)
    assert drift(Baseline.of(one), Figures(against_default=interval(0.9, 1.1))) is None


def test_a_rate_has_drifted_beyond_noise_and_the_days_of_a_machine():
    assert "the rate was 200 samples/s and is 100 samples/s" in drift(RECORD, Figures(rates=steady(100.0)))
    assert drift(RECORD, Figures(rates=steady(300.0))) is not None
    assert drift(RECORD, Figures(rates=steady(190.0))) is None
    assert drift(RECORD, Figures(rates=steady(150.0, spread=0.5))) is None
    assert drift(RECORD, Figures(rates=[100.0])) is None


@given(
    rate=st.floats(1e-3, 1e9), spread=st.floats(0, 0.5), runs=st.integers(2, 10), recorded=st.floats(1e-3, 1e9),
    pairs=st.integers(0, 20),
)  # fmt: skip
def test_the_interval_of_a_change_holds_its_mean_and_narrows_with_runs(rate, spread, runs, recorded, pairs):
    one = decision(samples_per_s=recorded, pairs=pairs)
    change = rate_change(Baseline.of(one), steady(rate, runs, spread))
    assert 0 < change.low < change.mean < change.high
    more = rate_change(Baseline.of(one), steady(rate, 2 * runs, spread))
    assert more.high / more.low < change.high / change.low
