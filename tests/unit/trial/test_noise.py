"""What a replay does to rates."""

import math
import statistics
from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError

from autotune.trial.noise import Noise, NoiseSource

RECORDED = tuple(np.random.default_rng(0).normal(0, 0.05, 300))


def logs(noise, count=4000, *, seed=0, recorded=RECORDED):
    source = NoiseSource(noise, recorded, seed=seed)
    return [math.log(source.factor()) for _ in range(count)]


def test_neighbours_in_time_come_in_blocks():
    found = logs(Noise(block=4), 400)
    places = [min(range(len(RECORDED)), key=lambda n: abs(RECORDED[n] - log)) for log in found]
    for begin in range(0, 400, 4):
        block = places[begin : begin + 4]
        assert {(later - earlier) % len(RECORDED) for earlier, later in pairwise(block)} == {1}


@pytest.mark.parametrize("noise", [Noise(run_to_run=0.04), Noise(run_to_run=0.04, tail_freedom=4)])
@pytest.mark.parametrize("recorded", [RECORDED, ()])
def test_the_spread_is_what_was_asked_for(noise, recorded):
    assert statistics.pstdev(logs(noise, 20_000, recorded=recorded)) == pytest.approx(0.04, rel=0.1)


def test_heavy_tails_have_more_far_out():
    far = [sum(abs(log) > 0.12 for log in logs(noise, 20_000)) for noise in (
        Noise(run_to_run=0.04), Noise(run_to_run=0.04, tail_freedom=3),
    )]  # fmt: skip
    assert far[1] > 2 * far[0]


def test_a_drift_comes_once_and_stays():
    found = logs(Noise(run_to_run=0.0, drift=-0.1, drift_within=50), 100)
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (0.0, pytest.approx(-0.1))
    assert len(set(found)) == 2


def test_bursts_take_their_share_of_the_runs_and_last():
    found = logs(Noise(run_to_run=0.0, burst_share=0.2, burst_runs=5, burst_factor=0.5), 20_000)
    hit = [log < -0.5 for log in found]
    assert statistics.mean(hit) == pytest.approx(0.2, abs=0.03)
    begun = sum(later and not earlier for earlier, later in pairwise(hit))
    assert sum(hit) / begun >= 5


def test_senseless_answers_are_told_as_none():
    source = NoiseSource(Noise(senseless_share=0.25), RECORDED, seed=0)
    none = sum(source.factor() is None for _ in range(4000))
    assert none / 4000 == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("wrong", [{"run_to_run": -0.1}, {"block": 0}, {"burst_share": 1.0}, {"tail_freedom": 2.0}])
def test_noise_without_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        Noise(**wrong)
