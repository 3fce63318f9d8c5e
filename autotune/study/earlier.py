"""What is known from before: records of interrupted runs, of earlier ones, and what is deployed."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.spec import LoaderConfig, MachineFacts, TrialRecord
from autotune.study.setting import Setting


def interrupted_records(setting: Setting) -> list[TrialRecord]:
    """Give the records of a run that ended without a decision: they are kept, and their time is charged."""
    decided = [decision.decided_at for decision in setting.store.decisions(setting.spec.name)]
    last = max(decided, default=None)
    records = setting.store.records(setting.spec.name)
    return [record for record in records if _same(record, setting) and (last is None or record.started_at > last)]


def known_records(setting: Setting, earlier: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Give the records that need not be measured again.

    Of runs that came to a decision these are rates, and breaches of the limit that the workload names. All
    other failures may have been put right since, as their messages ask for.
    """
    kept = {record.key for record in earlier}
    return [
        record
        for record in setting.store.records(setting.spec.name)
        if _same(record, setting)
        and (record.failure is None or record.failure.kind == "device_memory" or record.key in kept)
        and not (record.failure is not None and record.failure.kind == "budget")  # this run's may be a longer one
    ]


def deployed_config(setting: Setting) -> LoaderConfig | None:
    """Give what the newest decision for this workload and machine deploys, if it is still possible."""
    for decision in setting.store.decisions(setting.spec.name):
        same = decision.machine.machine_class == setting.inspection.machine.machine_class
        same = same and decision.dataset == setting.inspection.dataset
        if same and decision.workload == setting.spec.workload and decision.outcome == "gain":
            return decision.config if decision.config in setting.space.points else None
    return None


def _same(record: TrialRecord, setting: Setting) -> bool:
    """Whether a record answers for this run: same workload, dataset and class of machine, still in the space."""
    machine = setting.inspection.machine.machine_class
    return (
        record.phase == "search"
        and record.workload == setting.spec.workload
        # objects of a script share a workload: only the facts tell two datasets of one class apart
        and (record.dataset is None or record.dataset == setting.inspection.dataset)
        and (record.machine is None or record.machine.machine_class == machine)
        and (record.machine is None or not _other_majors(record.machine, setting.inspection.machine))
        and record.config in setting.space.points
    )


def _other_majors(there: MachineFacts, here: MachineFacts) -> bool:
    """Whether a library that both know differs in its major version: what was measured then answers for nothing."""
    shared = there.versions.keys() & here.versions.keys()
    return any(there.versions[name].split(".")[0] != here.versions[name].split(".")[0] for name in shared)
