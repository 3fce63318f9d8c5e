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
SEEDS = range(4)


@cache
def landscape(name):
    return Landscape.load(FOLDER / f"{name}.json")


def after(first):
    """Give second studies on one CPU that begin with what a study over another landscape left."""
    return Replays(landscape("one_cpu/A"), known=Replays(first).left_by(1000, NOISE))


@cache
def studies(kind):
    replays = {
        "alone": lambda: Replays(landscape("one_cpu/A")),
        "taught": lambda: after(landscape("A")),
        "misled": lambda: after(inverted(landscape("A"))),
    }[kind]()
    return [replays.run(seed, NOISE) for seed in SEEDS]


def runs_to_5_percent(found):
    return next((step.processes for step in found.steps if found.regret_of(step.config) <= 0.05), math.inf)


def median_runs(kind):
    return statistics.median(runs_to_5_percent(one) for one in studies(kind))


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
@pytest.mark.xfail(strict=True, reason="over the recorded class misleading priors cost 7 runs in the median, not 4")
def test_a_misleading_prior_costs_a_few_runs():
    assert median_runs("misled") <= median_runs("alone") + CARRIED_MAX


@pytest.mark.slow
def test_a_misleading_prior_costs_no_regret():
    worst = max(one.regret for one in studies("alone"))
    assert max(one.regret for one in studies("misled")) <= max(worst, 0.025)
