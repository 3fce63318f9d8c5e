"""What one class of machine teaches a study on another, over recorded landscapes: runs saved, what misleading costs."""

import math
import statistics
from functools import cache
from pathlib import Path

import pytest

from autotune.constants import CARRIED_MAX
from autotune.study.replayed import Replays
from autotune.trial import Landscape
from autotune.trial.landscape import inverted
from autotune.trial.noise import Noise

FOLDER = Path(__file__).parents[2] / "studies" / "records" / "landscapes"
NOISE = Noise(run_to_run=0.04)
SEEDS = 4
SEEDS_OF_A_MEDIAN = 48  # half of the studies need as many runs as the guesses take, the others up to seven times more


@cache
def landscape(name):
    return Landscape.load(FOLDER / f"{name}.json")


def after(first):
    """Give second studies on one CPU that begin with what a study over another landscape left."""
    return Replays(landscape("one_cpu/A"), known=Replays(first).left_by(1000, NOISE))


@cache
def studies(kind, seeds=SEEDS):
    replays = {
        "alone": lambda: Replays(landscape("one_cpu/A")),
        "taught": lambda: after(landscape("A")),
        "misled": lambda: after(inverted(landscape("A"))),
    }[kind]()
    return [replays.run(seed, NOISE) for seed in range(seeds)]


def runs_to_5_percent(found):
    return next((step.processes for step in found.steps if found.regret_of(step.config) <= 0.05), math.inf)


def median_runs(kind, seeds=SEEDS):
    return statistics.median(runs_to_5_percent(one) for one in studies(kind, seeds))


def told(found):
    return [note for note in found.summary.notes if note.startswith("priors: ")]


def test_the_second_class_was_recorded_whole():
    for letter in "AC":
        found = landscape(f"one_cpu/{letter}")
        assert found.inspection.machine.cpu_count == 1
        assert {entry.config for entry in found.entries} == Replays(found).space.points


@pytest.mark.slow
def test_priors_of_another_class_cut_the_runs_to_within_5_percent():
    assert median_runs("taught") <= 0.6 * median_runs("alone")
    assert statistics.median(one.regret for one in studies("taught")) <= 0.03
    for one in studies("taught"):
        (note,) = told(one)
        assert "similarity 0.8" in note
        assert "1 instead of 2 CPUs" in note


@pytest.mark.slow
def test_a_misleading_prior_costs_a_few_runs():
    alone, misled = (studies(kind, SEEDS_OF_A_MEDIAN) for kind in ("alone", "misled"))
    assert median_runs("misled", SEEDS_OF_A_MEDIAN) <= median_runs("alone", SEEDS_OF_A_MEDIAN) + CARRIED_MAX
    for runs in (14, 20, 30, 50):  # nor do the unlucky ones pay more than that
        there = sum(runs_to_5_percent(one) <= runs for one in alone)
        assert sum(runs_to_5_percent(one) <= runs + CARRIED_MAX for one in misled) >= there


@pytest.mark.slow
def test_a_misleading_prior_costs_no_regret():
    worst = max(one.regret for one in studies("alone"))
    assert max(one.regret for one in studies("misled")) <= max(worst, 0.025)
