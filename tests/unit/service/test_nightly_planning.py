"""What a night has to do for a study, and why."""

from datetime import timedelta
from pathlib import Path

import pytest
from registry_values import START, decision, facts, machine, workload

from autotune.service.nightly.course import begun
from autotune.service.nightly.judging import Figures
from autotune.service.nightly.planning import Known, Need, plan
from autotune.service.nightly.study_night import Looked, _judged
from autotune.spec import DecisionEvent, Deployment, Inspection, LoaderConfig, StudyNight, WaitingDecision
from autotune.spec.study_file import spec_from_fields

FILE = Path("s.yaml")
SPEC = spec_from_fields({"name": "s", "dataset": "pack:make", "budget": "2m"})


def inspection(**changes):
    fields = {"dataset": facts(), "machine": machine(), "sample_structure": "", "sample_bytes": 1,
              "largest_sample_bytes": 1, "fingerprint": "same"}  # fmt: skip
    return Inspection(**{**fields, **changes})


def decided(**changes):
    return decision(**{"fingerprint": "same", "workload": SPEC.workload, **changes})


def deployment(one, **changes):
    fields = {"group": "g", "study": "s", "type_name": "pack.Data", "machine_class": "m", "version": 1}
    return Deployment(**{**fields, "decision": one, **changes})


def known(*decisions, waiting=(), events=()):
    return Known(
        deployments=[deployment(one) for one in decisions],
        waiting=[
            WaitingDecision(decision=one, deployment=deployment(None), since=START, reason="r") for one in waiting
        ],
        decisions=[*waiting, *decisions],
        events=events,
    )


def planned(found, *, seen=None, spec=SPEC, **more):
    return plan(spec, FILE, seen or inspection(), found, began=START, **more)


def test_nothing_has_changed_so_what_is_deployed_is_only_checked():
    found = planned(known(decided()))
    assert (found.task, found.need) == ("check", Need.NONE)
    assert found.deployed == decided(key=found.deployed.key)
    assert "2026-01-01" in found.why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"fingerprint": "other"}, "the files of the dataset have changed"),
        ({"machine": machine(versions={"python": "3.11.7", "torch": "2.13.1"})}, "torch 2.13.1 instead of 2.13.0"),
        ({"machine": machine(versions={"python": "3.11.7", "torch": "2.13.0", "h5py": "3"})}, "h5py 3 instead of none"),
        ({"machine": machine(driver="560.35.03")}, "the driver has changed: 560.35.03 instead of None"),
    ],
)
def test_what_has_changed_leads_to_a_search(changes, why):
    found = planned(known(decided()), seen=inspection(**changes))
    assert (found.task, found.need) == ("search", Need.CHANGED)
    assert why in found.why


@pytest.mark.parametrize("fingerprint", [None, "same"])
def test_a_fingerprint_that_nobody_can_have_is_no_change(fingerprint):
    found = planned(known(decided(fingerprint=None)), seen=inspection(fingerprint=fingerprint))
    assert found.task == "check"


def test_another_machine_of_the_class_has_its_own_paths_and_updates():
    elsewhere = decided(machine=machine(host="there", versions={"python": "3.11.7", "torch": "2.13.9"}), minute=5)
    assert planned(known(elsewhere), seen=inspection(fingerprint="other")).task == "check"
    mine = decided(minute=1)
    both = Known(deployments=[deployment(elsewhere)], decisions=[elsewhere, mine])
    assert planned(both).task == "check"
    assert "files of the dataset" in planned(both, seen=inspection(fingerprint="other")).why


def test_a_study_file_that_measures_something_else_leads_to_a_search():
    spec = spec_from_fields({**SPEC.model_dump(), "subset": 10})
    found = planned(known(decided()), spec=spec)
    assert (found.need, "something else" in found.why) == (Need.CHANGED, True)


def test_a_longer_budget_or_another_promotion_is_no_change():
    spec = spec_from_fields({**SPEC.model_dump(), "budget": "9m", "promotion": "review"})
    assert planned(known(decided()), spec=spec).task == "check"


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (known(), "never been tuned"),
        (known(decided(machine=machine(cpu_count=64))), "never been tuned on this class of machine"),
        (known(decided(dataset=facts(length=7))), "100 samples instead of 7"),
        (known(decided(dataset=facts(structure="size=9"))), "another structure"),
        (known(decided(workload=workload("step"))), "never been tuned with this consumer"),
        (Known(decisions=[decided()]), "nothing is deployed"),
        (known(decided(machine=machine(versions={"torch": "3.0.0"}))), "major versions have changed: torch 3.0.0"),
        (known(decided(outcome="nothing_feasible", ratio=None)), "nothing was feasible"),
    ],
)
def test_without_a_deployment_a_search_is_needed_and_the_reason_is_told(found, why):
    planned_now = planned(found)
    assert (planned_now.task, planned_now.need) == ("search", Need.NOTHING_DEPLOYED)
    assert why in planned_now.why


def test_a_decision_that_waits_is_not_searched_again():
    old, new = decided(), decided(config=LoaderConfig(num_workers=4), minute=5)
    found = planned(known(old, waiting=[new]), seen=inspection(fingerprint="other"))
    assert (found.task, found.need) == ("check", Need.NONE)
    assert "waits for a review" in found.why
    first = planned(known(waiting=[new]))
    assert (first.task, first.deployed) == ("check", None)


def test_who_asks_gets_a_search_whatever_waits():
    found = planned(known(decided(), waiting=[decided(minute=5)]), asked_by="ada")
    assert (found.task, found.need, found.why) == ("search", Need.ASKED_FOR, "ada asked for it")


def test_what_this_night_took_back_before_it_was_killed_is_searched_and_what_an_earlier_one_did_is_not():
    bad, good = decided(minute=5), decided()
    event = DecisionEvent(
        number=3, group="g", study="s", decision_key=bad.key, action="rolled_back", actor="autotune",
        reason="slower", at=START + timedelta(hours=1), before_key=bad.key, after_key=good.key,
    )  # fmt: skip
    one = Known(deployments=[deployment(good)], decisions=[bad, good], events=[event])
    assert planned(one).need is Need.TAKEN_BACK
    earlier = event.model_copy(update={"at": START - timedelta(hours=1)})
    two = Known(deployments=[deployment(good)], decisions=[bad, good], events=[earlier])
    assert planned(two).need is Need.NONE


def test_of_two_groups_that_answer_the_newer_deployment_counts():
    old, new = decided(minute=1), decided(minute=2)
    assert planned(known(old, new)).deployed == new


def no(action, one, *, by="ada", after=None):
    return DecisionEvent(
        number=9, group="g", study="s", decision_key=one.key, action=action, actor=by, reason="stalls",
        at=START, before_key=one.key, after_key=after,
    )  # fmt: skip


def test_what_a_person_took_back_to_the_default_is_not_searched_anew_every_night():
    one = decided()
    found = Known(deployments=[deployment(None)], decisions=[one], events=[no("rolled_back", one)])
    assert (planned(found).task, planned(found).need) == ("check", Need.NONE)
    assert "ada has taken back what was deployed on 2026-01-01: stalls" in planned(found).why
    changed = planned(found, seen=inspection(machine=machine(driver="560")))
    assert (changed.task, changed.need) == ("search", Need.CHANGED)
    by_itself = Known(deployments=[deployment(None)], decisions=[one], events=[no("rolled_back", one, by="autotune")])
    assert plan(SPEC, FILE, inspection(), by_itself, began=START + timedelta(days=1)).need is Need.NOTHING_DEPLOYED


def test_what_a_person_rejected_for_the_study_file_as_it_is_now_is_not_searched_again():
    spec = spec_from_fields({**SPEC.model_dump(), "subset": 10})
    old, new = decided(), decided(workload=spec.workload, minute=5)
    both = {"deployments": [deployment(old)], "decisions": [new, old]}
    assert planned(Known(**both), spec=spec).need is Need.CHANGED
    assert planned(Known(**both, events=[no("rejected", new)]), spec=spec).need is Need.NONE
    assert planned(Known(**both, events=[no("rejected", old)]), spec=spec).need is Need.CHANGED


def test_of_two_groups_of_one_class_the_one_with_the_major_versions_of_this_host_counts():
    here = decided(machine=machine(versions={"torch": "2.13.0", "pillow": "11.0"}), minute=1)
    there = decided(machine=machine(host="there", versions={"torch": "2.13.0", "pillow": "12.0"}), minute=2)
    seen = inspection(machine=machine(versions={"torch": "2.13.0", "pillow": "11.0"}))
    found = planned(known(there, here), seen=seen)
    assert (found.deployed, found.need) == (here, Need.NONE)


@pytest.mark.parametrize(
    ("file_says", "default_runs", "goes_on"),
    [("pack:other", True, True), ("pack:other", False, False), ("pack:make", True, False)],
)
def test_what_cannot_be_measured_is_searched_anew_where_something_has_changed_anyway(file_says, default_runs, goes_on):
    spec = spec_from_fields({"name": "s", "dataset": file_says, "budget": "2m"})
    found = planned(known(decided()), spec=spec)
    night = begun(StudyNight(study="s", file="s.yaml", task="check", why="", outcome="failed"), found)
    looked = Looked(plan=found, inspection=inspection(), night=night, began=START)
    figures = Figures(hindered="disk space, no room for the archive", default_runs=default_runs)
    judged = _judged(looked, None, figures)
    assert isinstance(judged, Looked) == goes_on
    told = judged.night if goes_on else judged
    assert told.told == ("it could not be measured: disk space, no room for the archive",)
    assert (told.outcome == "failed") == (not goes_on)
