"""What a night says of a study that was searched."""

import pytest
from registry_values import decision

from autotune.service.nightly.course import measured, outcome_of
from autotune.service.nightly.judging import Figures
from autotune.spec import LoaderConfig, StudyNight, StudySummary

DEFAULT, A, B, C = (
    LoaderConfig(num_workers=workers, prefetch_factor=2 if workers else None).canonical(has_accelerator=False)
    for workers in range(4)
)


def outcome(*, before, served, now, found="gain", waits=False):
    """Of a night that took back what was deployed before where something else was served when the search began."""
    night = StudyNight(
        study="s", file="s.yaml", task="check", why="w", outcome="kept" if served == before else "rolled_back"
    )
    summary = StudySummary(study="s", decision_key="d", outcome=found, best=now or A, default=DEFAULT, why="w")
    deployed = [None if one is None else decision(config=one) for one in (before, now)]
    return outcome_of(night, deployed[0], served, deployed[1], summary=summary, waits=waits)


def test_runs_that_failed_or_were_too_few_are_told():
    night = StudyNight(study="s", file="s.yaml", task="check", why="w", outcome="kept", told=("first",))
    found = measured(night, Figures(rates=[100.0, 102.0], failed_once="timed out, no batch"))
    assert (found.measured_samples_per_s, found.told[0]) == (101.0, "first")
    assert "timed out, no batch" in found.told[1]
    assert "2 runs" in found.told[2]
    assert measured(night, Figures(rates=[100.0] * 3)).told == ("first",)


@pytest.mark.parametrize(
    ("before", "served", "now", "expected"),
    [
        (A, A, A, "kept"),
        (A, A, B, "promoted"),
        (None, DEFAULT, B, "promoted"),
        (B, A, A, "rolled_back"),
        (B, DEFAULT, None, "rolled_back"),
        (B, A, C, "promoted"),
        (B, A, B, "kept"),
    ],
)
def test_rolled_back_is_what_the_search_of_the_same_night_has_not_deployed_again(before, served, now, expected):
    assert outcome(before=before, served=served, now=now) == expected


def test_what_waits_and_what_is_impossible_is_told():
    assert outcome(before=A, served=A, now=A, waits=True) == "waiting"
    assert outcome(before=B, served=A, now=A, waits=True) == "rolled_back"
    assert outcome(before=A, served=A, now=A, found="nothing_feasible") == "nothing_feasible"
