"""Which records and events stand behind a decision, and how they become rows."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.registry import open_registry
from autotune.spec import Interval, LoaderConfig
from autotune.tracking.report import StudyEvidence, finding, findings, gather, render_report
from autotune.tracking.report.evidence import TRIALS_MAX
from autotune.tracking.report.parts import finding_part
from autotune.tracking.report.tables import compared_rows, history_rows, trial_rows
from autotune.tracking.report.verdict import Strip, verdict_of

HOUR = timedelta(hours=1)


def evidence(decisions, records):
    return StudyEvidence(study="s", decisions=decisions, records=records)


def test_decision_stands_on_its_own_runs_and_on_all_trials_of_its_circumstances(make_record, decision):
    first = decision.replace(key="1" * 32, decided_at=make_record(20).started_at)
    records = [
        make_record(0, phase="search"),
        make_record(1, phase="confirm"),
        make_record(30, phase="search"),
        make_record(31, phase="race"),
        make_record(32, phase="compare"),
    ]
    late = make_record(33, phase="confirm").replace(started_at=decision.decided_at + HOUR)
    found = finding(evidence([decision, first], [*records, late]), decision)
    assert [record.key for record in found.trials] == [records[0].key, records[2].key]
    assert found.earlier == 1
    assert [record.key for record in found.compared] == [records[3].key], "not of the run before, nor of a later one"


def test_another_host_of_the_class_compared_for_a_decision_of_its_own(make_record, decision):
    there = decision.machine.replace(host="there")
    theirs = decision.replace(key="1" * 32, machine=there, decided_at=make_record(40).started_at)
    search, race = (make_record(number, phase=phase) for number, phase in ((0, "search"), (1, "race")))
    foreign = [one.replace(key=f"f{one.key[1:]}", machine=there) for one in (search, race)]
    found = finding(evidence([decision, theirs], [search, race, *foreign]), decision)
    assert [record.key for record in found.trials] == [search.key, foreign[0].key]
    assert [record.key for record in found.compared] == [race.key], "its decision between is of another host"


def test_a_decision_stands_on_the_pairs_of_all_machines_that_measured_for_it(make_record, decision):
    there = decision.machine.replace(host="there")
    before = decision.replace(key="1" * 32, machine=there, other_hosts=("third",), decided_at=make_record(4).started_at)
    old, race = (make_record(number, phase=phase) for number, phase in ((0, "confirm"), (10, "race")))
    records = [old, race, *(make_record(20 + place, phase="confirm") for place in range(3))]
    records[0], records[-1] = old.replace(machine=there), records[-1].replace(machine=there)
    decided = decision.replace(other_hosts=("there",))
    found = finding(evidence([decided, before], records), decided)
    assert found.compared == tuple(records[1:]), "what one of them measured for the decision before is not among them"


def test_too_many_trials_are_cut_to_the_newest_and_the_rest_is_counted(make_record, decision):
    drawn = make_record(TRIALS_MAX + 10).started_at
    first, second = (
        decision.replace(key="1" * 32, decided_at=make_record(8).started_at),
        decision.replace(decided_at=drawn),
    )
    records = [make_record(number, phase="search") for number in range(TRIALS_MAX + 5)]
    known = StudyEvidence(study="s", decisions=[second, first], records=records, unread=100)
    found = finding(known, second)
    assert (len(found.trials), found.trials[0], found.left_out) == (TRIALS_MAX, records[5], 105)
    assert found.earlier == 109, "those that were not read are older still"
    part = finding_part(found, anchor="a", address=None)
    assert (part.trials_drawn, part.trials_undrawn) == (TRIALS_MAX, 105)
    assert len(part.trials) + part.trials_left_out == TRIALS_MAX + 105


def test_records_of_other_machines_datasets_and_workloads_stand_behind_nothing(make_record, decision):
    record = make_record(0)
    foreign = [
        record.replace(machine=record.machine.replace(cpu_count=64)),
        record.replace(dataset=record.dataset.replace(length=7)),
        record.replace(workload=record.workload.replace(page_cache="cold")),
    ]
    assert finding(evidence([decision], foreign), decision).records == ()
    assert finding(evidence([decision], [record.replace(machine=None, dataset=None)]), decision).trials


def test_each_class_of_machine_has_its_newest_decision(decision):
    large = decision.machine.replace(cpu_count=64)
    old = decision.replace(key="1" * 32, decided_at=decision.decided_at - HOUR)
    there = decision.replace(key="2" * 32, machine=large, decided_at=decision.decided_at - 2 * HOUR)
    found = findings(evidence([decision, old, there], []))
    assert [one.decision.key for one in found] == [decision.key, there.key]


def test_what_was_known_with_a_decision_holds_nothing_that_came_later(tmp_path, decision):
    later = decision.replace(key="e" * 32, decided_at=decision.decided_at + HOUR)
    with open_registry(tmp_path) as registry:
        registry.save_decision(decision)
        registry.save_decision(later)
        known = gather(registry, decision.study).as_of(decision)
    assert [one.key for one in known.decisions] == [decision.key]
    assert [event.decision_key for event in known.events] == [decision.key]


def test_history_tells_who_did_what_and_what_was_deployed_from_then_on(tmp_path, decision):
    other = LoaderConfig(batch_size=32, num_workers=2)
    later = decision.replace(key="e" * 32, config=other, decided_at=decision.decided_at + HOUR)
    with open_registry(tmp_path) as registry:
        registry.save_decision(decision)
        registry.save_decision(later, promotion="review")
        version = registry.deployments()[0].version
        registry.approve(later.key, actor="maria", reason="looked at it", expected_version=version)
        version = registry.deployments()[0].version
        registry.roll_back(later.key, actor="john", reason="training was slower", expected_version=version)
        rows = history_rows(gather(registry, decision.study))
    assert [(row.what, row.actor) for row in rows] == [
        ("taken back", "john"), ("approved", "maria"), ("waits for review", "autotune"), ("deployed", "autotune"),
    ]  # fmt: skip
    assert rows[0].reason == "training was slower"
    assert [row.then for row in rows] == [decision.config.label(), "this", "as before", "this"]
    assert [row.deployed for row in rows] == [True, False, False, False]
    assert rows[1].config == other.label()


def test_finding_knows_that_something_else_is_deployed(tmp_path, decision):
    later = decision.replace(
        key="e" * 32, config=LoaderConfig(batch_size=32, num_workers=2), decided_at=decision.decided_at + HOUR
    )
    with open_registry(tmp_path) as registry:
        registry.save_decision(decision)
        registry.save_decision(later, promotion="review")
        (found,) = findings(gather(registry, decision.study))
    assert found.decision.key == later.key
    assert found.deployment.decision.key == decision.key


def test_compared_configurations_have_the_median_and_spread_of_their_runs(make_record, decision, crashed):
    best, default = decision.config.model_dump(), decision.default.model_dump()
    records = [
        *(
            make_record(number, rate=rate, phase="confirm", **default)
            for number, rate in enumerate([500.0, 520.0, 540.0])
        ),
        *(make_record(number, rate=1400.0, phase="race", batch_size=64) for number in (5, 6)),
        make_record(7, rate=1500.0, phase="confirm", **best),
        make_record(8, failure=crashed, phase="confirm", **best),
    ]
    rows = compared_rows(records, decision)
    assert [row.role for row in rows] == ["chosen", "PyTorch default", "rival"]
    assert (rows[0].rate, rows[0].runs, rows[0].failed) == ("1,500", 1, 1)
    assert (rows[1].rate, rows[1].spread, rows[1].runs) == ("520", "500 to 540", 3)


def test_trials_are_told_with_their_noise_and_failures_with_their_reason(make_record, out_of_memory):
    measured, refused = trial_rows([make_record(1, failure=out_of_memory), make_record(0, rate=8.5)], None)
    assert (measured.number, measured.rate, measured.noise, measured.result) == ("0", "8.5", "± 3.0%", "measured")
    assert (refused.rate, refused.result, refused.device_memory) == ("–", "infeasible", "9 GiB")
    assert refused.reason.startswith("device memory: the peak")


def test_verdict_without_pairs_claims_no_ratio(decision):
    told = verdict_of(decision.replace(ratio=None, pairs=0))
    assert (told.ratio, told.interval, told.strip) == ("", "", None)


RATIOS = st.floats(min_value=1e-6, max_value=1e6)


@given(ends=st.tuples(RATIOS, RATIOS, RATIOS).map(sorted))
def test_strip_keeps_the_order_of_what_it_shows_within_its_axis(ends):
    low, mean, high = ends
    strip = Strip.of(Interval(low=low, mean=mean, high=high))
    assert 0 <= min(strip.low, strip.one) <= max(strip.high, strip.one) <= 100
    assert strip.low <= strip.mean <= strip.high
    assert (strip.one <= strip.low) == (low >= 1) or strip.one == pytest.approx(strip.low, abs=0.02)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_ratio_without_logarithm_has_no_strip(low):
    assert Strip.of(Interval(low=low, mean=1.0, high=2.0)) is None


def test_of_all_events_that_led_to_what_is_deployed_only_the_last_is_marked(tmp_path, decision):
    other = decision.replace(
        key="e" * 32, config=LoaderConfig(batch_size=32, num_workers=2), decided_at=decision.decided_at + HOUR
    )
    with open_registry(tmp_path) as registry:
        registry.save_decision(decision)
        registry.save_decision(other)
        version = registry.deployments()[0].version
        registry.roll_back(other.key, actor="john", reason="slower", expected_version=version)
        rows = history_rows(gather(registry, decision.study))
        registry.roll_back(decision.key, to="default", actor="john", reason="stalls", expected_version=version + 1)
        taken_back = gather(registry, decision.study)
    assert [(row.what, row.deployed) for row in rows] == [
        ("taken back", True),
        ("deployed", False),
        ("deployed", False),
    ]
    assert not any(row.deployed for row in history_rows(taken_back))
    page = render_report([taken_back], made_at=decision.decided_at)
    assert "john took back what was" in page
    assert "until somebody approves" not in page
