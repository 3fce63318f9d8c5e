"""What drift is told from: figures of this very machine."""

from datetime import timedelta

from registry_values import START, decision, machine

from autotune.service.nightly.baseline import Baseline, baseline
from autotune.spec import LoaderConfig, NightlyReport, StudyNight

ELSEWHERE = machine(host="there")


def night(day, one, rate, *, searched=False):
    done = StudyNight(
        study="s", file="s.yaml", task="check", why="w", outcome="kept", searched=searched, before_key=one.key,
        measured_samples_per_s=rate,
    )  # fmt: skip
    return NightlyReport(machine="here", started_at=START + timedelta(days=day), budget_s=60, studies=(done,))


def told(deployed, decisions, nights=()):
    found = baseline(deployed, decisions, nights, host="here")
    return None if found is None else found.samples_per_s


def test_what_was_decided_here_is_the_measure_and_what_another_host_decided_is_none():
    mine, theirs = decision(samples_per_s=200.0), decision(machine=ELSEWHERE, samples_per_s=900.0, minute=5)
    assert baseline(mine, [mine], [], host="here") == Baseline.of(mine)
    assert baseline(theirs, [theirs], [], host="here") is None
    assert told(theirs, [theirs, mine]) == 200.0, "the same configuration, decided here earlier"
    other = decision(config=LoaderConfig(num_workers=3), samples_per_s=100.0)
    assert baseline(theirs, [theirs, other], [], host="here") is None


def test_without_a_decision_of_its_own_a_host_is_held_against_its_first_night():
    theirs = decision(machine=ELSEWHERE, samples_per_s=900.0)
    assert told(theirs, [theirs], [night(3, theirs, 130.0), night(2, theirs, 120.0), night(1, theirs, 110.0)]) == 110.0


def test_what_a_search_was_run_for_is_no_drift_any_more_whatever_it_came_to():
    mine = decision(samples_per_s=200.0)
    nights = [night(3, mine, 140.0), night(2, mine, 150.0, searched=True), night(1, mine, 190.0)]
    assert told(mine, [mine], nights) == 150.0
    assert told(mine, [decision(samples_per_s=145.0, minute=9 * 24 * 60), mine], nights) == 145.0
