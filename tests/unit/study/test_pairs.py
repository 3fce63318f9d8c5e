"""Ratios of interleaved runs."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_records import measured_record

from autotune.ratios import ratio_interval
from autotune.spec import LoaderConfig
from autotune.study.decide import outcome_of
from autotune.study.pairs import Blocks

rates = st.floats(1, 1e6)


@given(st.lists(st.tuples(rates, rates), min_size=2, max_size=10))
def test_interval_holds_its_mean_and_the_inverse_ratio_is_reciprocal(pairs):
    above, below = [a for a, _ in pairs], [b for _, b in pairs]
    ratio, inverse = ratio_interval(above, below), ratio_interval(below, above)
    assert ratio.low <= ratio.mean * (1 + 1e-9)
    assert ratio.mean <= ratio.high * (1 + 1e-9)
    if ratio.high < 1e300 and inverse.high < 1e300:
        assert ratio.mean * inverse.mean == pytest.approx(1)
        assert ratio.low * inverse.high == pytest.approx(1, rel=1e-6)


@given(st.lists(rates, max_size=1))
def test_fewer_than_two_pairs_give_no_interval(values):
    assert ratio_interval(values, values) is None


def test_interval_covers_the_true_ratio_as_often_as_it_says():
    draw = random.Random(0)
    covered = 0
    for _ in range(1000):
        noisy = [[draw.gauss(0, 0.05) for _ in range(5)] for _ in range(2)]
        above, below = ([scale * 2.718281828**x for x in noise] for scale, noise in zip((150, 100), noisy, strict=True))
        interval = ratio_interval(above, below)
        covered += interval.low <= 1.5 <= interval.high
    assert 925 <= covered <= 975


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (1.2, 1.4, "gain"),
        (1.011, 1.013, "gain"),
        (0.99, 1.015, "nothing_to_gain"),
        (0.7, 0.9, "nothing_to_gain"),
        (0.95, 1.3, "undecided"),
        (1.005, 1.05, "undecided"),
    ],
)
def test_outcome_promotes_only_what_is_beyond_noise(low, high, outcome):
    from autotune.spec import Interval

    assert outcome_of(Interval(mean=(low + high) / 2, low=low, high=high)) == outcome


def test_blocks_alternate_their_order_so_that_drift_hits_both_alike():
    first, second = LoaderConfig(batch_size=8), LoaderConfig(batch_size=16)
    order = []

    def run(config):
        order.append(config)
        return measured_record(config, 100.0 + len(order))

    blocks = Blocks([first, second])
    for _ in range(3):
        blocks.measure(run)
    assert order == [first, second, second, first, first, second]
    assert blocks.rates(first) == [101.0, 104.0, 105.0]
    assert blocks.paired_rates(first, second) == [(101.0, 102.0), (104.0, 103.0), (105.0, 106.0)]
