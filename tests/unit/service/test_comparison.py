"""Two decisions side by side: where their intervals lie, and how far they can be compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_values import decision, facts

from autotune.service.pages.comparison import Row, picture_of, told_of
from autotune.spec import Interval, LoaderConfig

RATES = st.floats(min_value=0.01, max_value=100.0)


def interval(mean, share=0.05):
    return Interval(mean=mean, low=mean * (1 - share), high=mean * (1 + share))


@given(RATES, RATES)
def test_both_intervals_lie_on_one_axis_in_their_order(first, second):
    picture = picture_of(interval(first), interval(second))
    for place in (picture.a, picture.b):
        assert 0 <= place.low <= place.mean <= place.high <= 100
    assert 0 <= picture.one <= 100
    assert (picture.a.mean <= picture.b.mean) or first >= second
    assert (picture.a.low >= picture.one) or first * 0.95 <= 1.0


def test_nothing_is_drawn_where_a_ratio_is_missing_or_senseless():
    assert picture_of(None, interval(2.0)) is None
    assert picture_of(Interval(mean=0.0, low=0.0, high=1.0), interval(2.0)) is None


@pytest.mark.parametrize(("mean", "word"), [(2.9, "do not overlap"), (2.05, "overlap: these runs alone")])
def test_what_intervals_tell_is_said(mean, word):
    a, b = decision(ratio=interval(2.0)), decision(ratio=interval(mean), config=LoaderConfig(num_workers=4))
    assert any(word in sentence for sentence in told_of(a, b, []))


def test_other_circumstances_are_named_and_times_and_keys_are_none():
    a, b = decision(), decision(dataset=facts(length=7))
    rows = [
        Row(label="dataset", a="1", b="2", differs=True),
        Row(label="decided", a="1", b="2", differs=True),
        Row(label="memory", a="1", b="1", differs=False),
    ]
    told = told_of(a, b, rows)
    assert "They were measured under different circumstances (dataset)." in told
    assert "Both have the same configuration; only the evidence differs." in told
