"""What is known from before: records of interrupted runs, of earlier ones, and what is deployed."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.constants import REMEMBERED_CONFIGS
from autotune.spec import LoaderConfig, MachineFacts, TrialRecord
from autotune.study.setting import Setting

_BEFORE_DECISION = ("search", "race", "verify", "confirm")


def interrupted_records(setting: Setting) -> list[TrialRecord]:
    """Give the search's records of a run that ended without a decision: they are kept, and their time is charged."""
    return [record for record in _undecided(setting) if _counts(record, setting) and _same(record, setting)]


def untold_records(setting: Setting) -> list[TrialRecord]:
    """Give all records of a run that ended without a decision: the last ones may be saved and nobody told of them."""
    return [record for record in _undecided(setting) if _of_workload(record, setting)]


def _undecided(setting: Setting) -> list[TrialRecord]:
    """Give the study's records since the last decision; without runs that come after a decision."""
    here = setting.inspection.machine.machine_class
    decisions = setting.store.decisions(setting.spec.name)
    # machines of other classes come to decisions of their own in the same run
    decided = [decision.decided_at for decision in decisions if decision.machine.machine_class == here]
    last = max(decided, default=None)
    records = setting.store.records(setting.spec.name)
    return [one for one in records if one.phase in _BEFORE_DECISION and (last is None or one.started_at > last)]


def known_records(setting: Setting, earlier: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Give the records that need not be measured again.

    Of runs that came to a decision these are rates, and breaches of the limit that the workload names. All
    other failures may have been put right since, as their messages ask for.
    """
    kept = {record.key for record in earlier}
    return [
        record
        for record in setting.store.records(setting.spec.name)
        if _counts(record, setting)
        and _same(record, setting)
        and (record.failure is None or record.failure.kind == "device_memory" or record.key in kept)
        and not (record.failure is not None and record.failure.kind == "budget")  # this run's may be a longer one
    ]


def deployed_config(setting: Setting) -> LoaderConfig | None:
    """Give what is deployed for this workload and machine, if it is still possible."""
    for decision in setting.store.deployed_decisions(setting.spec.name):
        same = decision.machine.machine_class == setting.inspection.machine.machine_class
        same = same and decision.dataset == setting.inspection.dataset
        same = same and decision.workload == setting.spec.workload
        # newer evidence that was noisier, as `undecided`, keeps a configuration deployed as well as a gain does
        if same and decision.outcome != "nothing_feasible" and decision.config != decision.default:
            return decision.config if decision.config in setting.space.points else None
    return None


def remembered_configs(setting: Setting) -> list[LoaderConfig]:
    """Give what was fastest before the time from which records count, fastest first: worth measuring again."""
    since = setting.known_since
    if since is None:
        return []
    rates = {
        record.config: record.measurement.samples_per_s
        for record in setting.store.records(setting.spec.name)
        if record.started_at < since and record.measurement is not None and _same(record, setting)
    }
    return sorted(rates, key=lambda config: rates[config], reverse=True)[:REMEMBERED_CONFIGS]


def _counts(record: TrialRecord, setting: Setting) -> bool:
    """Whether a record is new enough to stand in for a run."""
    return setting.known_since is None or record.started_at >= setting.known_since


def _same(record: TrialRecord, setting: Setting) -> bool:
    """Whether a record answers for this run: of a search for the same, still in the space."""
    return (
        record.phase == "search"
        and _of_workload(record, setting)
        and (record.machine is None or not other_majors(record.machine, setting.inspection.machine))
        and record.config in setting.space.points
    )


def _of_workload(record: TrialRecord, setting: Setting) -> bool:
    """Whether a record is of the same workload, dataset and class of machine."""
    machine = setting.inspection.machine.machine_class
    return (
        record.workload == setting.spec.workload
        # objects of a script share a workload: only the facts tell two datasets of one class apart
        and (record.dataset is None or record.dataset == setting.inspection.dataset)
        and (record.machine is None or record.machine.machine_class == machine)
    )


def other_majors(there: MachineFacts, here: MachineFacts) -> bool:
    """Whether a library that both know differs in its major version: what was measured then answers for nothing."""
    shared = there.versions.keys() & here.versions.keys()
    return any(there.versions[name].split(".")[0] != here.versions[name].split(".")[0] for name in shared)
