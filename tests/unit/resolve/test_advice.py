"""What limits a configuration, in words."""

import pytest

from autotune.advice import bottleneck_text
from autotune.spec import Bottleneck
from autotune.units import format_difference


@pytest.mark.parametrize(
    ("stage", "limit", "expected"),
    [
        ("decode", "consuming process", "decode limits batch 32, files"),
        ("decode", "workers", "decode in the workers limits"),
        ("decode", "cores", "decode, with all cores busy, limits"),
    ],
)
def test_the_stage_is_named_with_where_it_runs(stage, limit, expected):
    found = Bottleneck(config="batch 32, files", stage=stage, limit=limit, stages={"read": 1.0, "decode": 60.0})
    assert expected in bottleneck_text(found)
    assert "decode 60 ms, read 1 ms a batch" in bottleneck_text(found)


@pytest.mark.parametrize(
    ("stage", "words"),
    [("consume", "faster loading buys nothing"), ("decode", "decoded archive"), ("gather", "near what this machine")],
)
def test_it_says_what_would_move_it(stage, words):
    found = Bottleneck(config="x", stage=stage, limit="consuming process", stages={stage: 1.0})
    assert words in bottleneck_text(found)


def test_a_step_that_waits_for_loading_beside_it_is_told_so():
    serial = Bottleneck(
        config="x", stage="consume", limit="consuming process", stages={"consume": 75.0, "decode": 25.0}
    )
    assert "loading takes 25 %" in bottleneck_text(serial).replace("25%", "25 %")
    overlapped = serial.replace(stages={"consume": 75.0, "hand over": 1.0, "decode": 25.0})
    assert "faster loading buys nothing" in bottleneck_text(overlapped)


@pytest.mark.parametrize(("share", "text"), [(0.031, "3.1 %"), (0.5, "50 %"), (19.1, "a factor of 20.1")])
def test_differences_are_shares_until_they_are_factors(share, text):
    assert format_difference(share) == text
