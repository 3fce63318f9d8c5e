"""Nightly runs that are kept, and records that are not."""

from datetime import timedelta

import pytest
from registry_values import START, decision, record

from autotune.registry import open_registry
from autotune.spec import LoaderConfig, NightlyReport, StudyNight


@pytest.fixture
def registry(tmp_path):
    with open_registry(tmp_path) as opened:
        yield opened


def night(key, minute, **changes):
    fields = {"machine": "here", "budget_s": 60.0, "started_at": START + timedelta(minutes=minute)}
    return NightlyReport(key=key, **{**fields, **changes})


def test_a_night_is_kept_as_far_as_it_has_come(registry):
    first, elsewhere = night("a", 1), night("c", 3, machine="there")
    registry.save_night(first)
    study = StudyNight(study="s", file="s.yaml", task="check", why="w", outcome="kept", told=("t",), wall_s=3.0)
    later = first.replace(studies=(study.model_dump(),), spent_s=5.0, exit_code=0, ended_at=START)
    registry.save_night(later)
    registry.save_night(night("b", 2))
    registry.save_night(elsewhere)
    assert registry.nights("here") == [night("b", 2), later]
    assert registry.nights(limit=1) == [elsewhere]


def test_old_records_go_but_for_what_a_deployed_decision_rests_on(registry):
    for minute in (0, 10, 20, 30):
        registry.save_record(record(f"s{minute}", minute=minute))
        registry.save_record(record(f"t{minute}", study="t", minute=minute))
        registry.save_record(record(f"u{minute}", study="u", minute=minute))
    for minute in (5, 15, 25):
        registry.save_decision(decision(minute=minute))
    registry.save_decision(decision(study="u", minute=5))
    removed = registry.prune_records(before=START + timedelta(minutes=25))
    assert [one.key for one in registry.records("s")] == ["s20", "s30"], "from the decision before the deployed one on"
    assert [one.key for one in registry.records("t")] == ["t30"], "without a decision only age counts"
    assert [one.key for one in registry.records("u")] == ["u0", "u10", "u20", "u30"], "the first decision needs all"
    assert removed == 5
    assert len(registry.decisions()) == 4


def test_the_newest_trial_of_each_configuration_stays_as_later_searches_may_have_known_it(registry):
    fast = LoaderConfig(num_workers=2).canonical(has_accelerator=False)
    for minute in (0, 1):
        registry.save_record(record(f"plain{minute}", minute=minute))
        registry.save_record(record(f"fast{minute}", minute=minute, config=fast))
        registry.save_record(record(f"race{minute}", minute=minute, phase="race"))
    registry.save_record(record("plain15", minute=15))
    for minute in (10, 20, 30):
        registry.save_decision(decision(minute=minute))
    registry.prune_records(before=START + timedelta(days=1))
    assert [one.key for one in registry.records("s")] == ["fast1", "plain15"]


def test_nothing_is_removed_that_is_not_old_enough(registry):
    registry.save_record(record("a", minute=30))
    assert registry.prune_records(before=START + timedelta(minutes=30)) == 0
