"""The method itself, over recorded landscapes: regret, bias, false alarms and runs of hundreds of seeded studies."""

import math
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from autotune.constants import PROCESS_RUNS_MAX
from autotune.study.replayed import Replays
from autotune.trial import Landscape
from autotune.trial.landscape import flat, tied
from autotune.trial.noise import Noise

FOLDER = Path(__file__).parents[2] / "studies" / "records" / "landscapes"
LETTERS = sorted(path.stem for path in FOLDER.glob("*.json"))
SHAPES = {"recorded": lambda landscape: landscape, "flat": flat, "ties": tied}
REGRET_P95 = {0.02: 0.025, 0.04: 0.025, 0.06: 0.04}
REGRET_OVER_NOISE = 0.04 / 0.06
"""What is allowed where the noise is larger: the repeats of a recording differ by 18 %."""
STUDIES = [pytest.param(36, marks=pytest.mark.slow), pytest.param(168, marks=pytest.mark.long)]
"""For each noise: 504 in all in the long run."""
EQUALS = 167
"""Studies among equals for each noise: 501 in all."""


@cache
def replays(letter, shape):
    return Replays(SHAPES[shape](Landscape.load(FOLDER / f"{letter}.json")))


def study(task):
    letter, shape, noise, seed = task
    return replays(letter, shape).run(seed, noise)


def run_all(count, noise, *, shape="recorded"):
    """Run so many studies, divided among the landscapes."""
    tasks = [(LETTERS[seed % len(LETTERS)], shape, noise, seed) for seed in range(count)]
    with ProcessPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(study, tasks, chunksize=8))


def p95(values):
    return float(np.percentile(list(values), 95))


def biases(found):
    return [one.bias for one in found if one.bias is not None]


def test_three_real_workloads_were_recorded_whole():
    assert LETTERS == ["A", "C", "I"]
    for letter in LETTERS:
        landscape = replays(letter, "recorded").landscape
        assert {entry.config for entry in landscape.entries} == replays(letter, "recorded").space.points
        assert len(landscape.entries) >= 150
        assert all(len(entry.rates) >= 3 or entry.failure for entry in landscape.entries)
        assert landscape.profile is not None
        assert 0.005 < landscape.spread < 0.2


@pytest.mark.parametrize("letter", LETTERS)
def test_a_study_finds_a_good_configuration_and_says_how_sure_it_is(letter):
    found = [replays(letter, "recorded").run(seed, Noise(run_to_run=0.04)) for seed in range(3)]
    assert all(one.summary.outcome == "gain" for one in found)
    assert statistics.median(one.regret for one in found) < 0.04
    for one in found:
        assert one.summary.process_runs <= PROCESS_RUNS_MAX
        assert one.summary.resolution_share > 0
        assert one.summary.ratio.low < one.summary.ratio.mean < one.summary.ratio.high


@pytest.mark.slow
def test_four_machines_find_as_good_a_configuration_as_one():
    found = [replays("C", "recorded").run(seed, Noise(run_to_run=0.04), machines=4) for seed in range(5)]
    assert all(one.summary.outcome == "gain" for one in found)
    assert statistics.median(one.regret for one in found) < 0.04
    assert statistics.median(abs(bias) for bias in biases(found)) < 0.04, "a pair is measured on one machine"
    for one in found:
        assert one.summary.process_runs <= PROCESS_RUNS_MAX
        assert any(note.startswith("4 machines of one class") for note in one.summary.notes)


def test_the_same_seed_gives_the_same_study():
    first, second = (replays("A", "recorded").run(7, Noise(run_to_run=0.04)).summary for _ in range(2))
    assert first.replace(decision_key="") == second.replace(decision_key="")


@pytest.mark.parametrize("studies", STUDIES)
@pytest.mark.parametrize("noise", REGRET_P95)
def test_regret_bias_and_runs_keep_their_promise(noise, studies):
    found = run_all(studies, Noise(run_to_run=noise))
    assert p95(one.regret for one in found) <= REGRET_P95[noise]
    assert abs(statistics.fmean(biases(found))) <= 0.01
    assert max(one.summary.process_runs for one in found) <= PROCESS_RUNS_MAX
    assert sum(one.summary.outcome == "gain" for one in found) >= 0.99 * studies


@pytest.mark.long
@pytest.mark.timeout(900)
def test_equals_are_separated_no_more_often_than_chance_and_hardly_ever_promoted():
    found = [one for noise in REGRET_P95 for one in run_all(EQUALS, Noise(run_to_run=noise), shape="flat")]
    assert statistics.fmean(one.separated for one in found) <= 0.07
    assert statistics.fmean(one.summary.outcome == "gain" for one in found) <= 0.035
    assert abs(statistics.fmean(biases(found))) <= 0.01


@pytest.mark.long
@pytest.mark.parametrize(
    ("noise", "shape", "allowed"),
    [
        (Noise(), "recorded", REGRET_OVER_NOISE * 0.18),
        (Noise(run_to_run=0.04), "ties", 0.05),
        (Noise(run_to_run=0.04, drift=math.log(0.85)), "recorded", 0.04),
        (Noise(run_to_run=0.04, tail_freedom=3), "recorded", 0.04),
        (Noise(run_to_run=0.03, burst_share=0.15), "recorded", 0.08),
        (Noise(run_to_run=0.03, senseless_share=0.05), "recorded", 0.05),
    ],
    ids=["as recorded", "ties", "drift", "heavy tails", "bursts", "senseless answers"],
)
def test_what_is_worse_than_noise_is_borne(noise, shape, allowed):
    found = run_all(60, noise, shape=shape)
    assert p95(one.regret for one in found) <= allowed
    assert max(one.summary.process_runs for one in found) <= PROCESS_RUNS_MAX
    assert abs(statistics.median(biases(found))) <= 0.03


@pytest.mark.long
def test_a_busy_neighbour_promotes_nothing_where_nothing_is_to_gain():
    found = run_all(150, Noise(run_to_run=0.04, burst_share=0.3, burst_runs=6), shape="flat")
    assert statistics.fmean(one.summary.outcome == "gain" for one in found) <= 0.035
