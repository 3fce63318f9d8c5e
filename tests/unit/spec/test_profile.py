"""Lines through costs, and bounds between measured batch sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.spec import Bound, Line, Profile

sizes = st.sets(st.integers(1, 1024), min_size=2, max_size=5)


@given(sizes, st.floats(0, 1e3), st.floats(0, 1e3))
def test_a_line_is_found_again(batch_sizes, fixed, per_sample):
    line = Line.through({size: fixed + per_sample * size for size in batch_sizes})
    for size in batch_sizes:
        assert line.at(size) == pytest.approx(fixed + per_sample * size, rel=1e-6, abs=1e-6)


@given(st.dictionaries(st.integers(1, 1024), st.floats(0, 1e6), max_size=5), st.integers(1, 4096))
def test_no_cost_is_below_zero(costs, size):
    line = Line.through(costs)
    assert line.fixed >= 0
    assert line.per_sample >= 0
    assert line.at(size) >= 0


def test_one_size_alone_is_taken_as_a_cost_for_each_sample():
    assert Line.through({10: 5.0}) == Line(per_sample=0.5)
    assert Line.through({}) == Line()


def profile(rates):
    return Profile(sample_s=1, bounds=tuple(Bound(batch_size=size, samples_per_s=rate) for size, rate in rates.items()))


def test_the_bound_of_a_measured_size_is_what_was_measured():
    known = profile({8: 100.0, 32: 200.0, 128: 150.0})
    assert [known.bound(size) for size in (8, 32, 128)] == [100.0, 200.0, 150.0]
    assert profile({}).bound(8) is None
    assert profile({8: 100.0}).bound(64) == 100.0


def test_between_two_sizes_the_seconds_of_a_batch_lie_on_a_line():
    # 0.1 s for 10 and 0.2 s for 30, so 0.15 s for 20
    assert profile({10: 100.0, 30: 150.0}).bound(20) == pytest.approx(20 / 0.15)


@given(st.dictionaries(st.integers(1, 512), st.floats(1, 1e6), min_size=1, max_size=4), st.integers(1, 2048))
def test_every_size_has_a_bound_above_zero(rates, size):
    assert profile(rates).bound(size) > 0
