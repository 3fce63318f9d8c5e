"""What a decision answers for here, and what has changed since one was taken. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotune.resolve.ranking import version_differences
from autotune.spec import Decision, Inspection, StudySpec


def answers(decision: Decision, spec: StudySpec, inspection: Inspection) -> bool:
    """Tell whether a decision answers the questions that training here would ask."""
    there, here = decision.workload, spec.workload
    return (
        decision.machine.machine_class == inspection.machine.machine_class
        and decision.dataset == inspection.dataset
        and (there.consumer.kind, there.loader_class) == (here.consumer.kind, here.loader_class)
        and not other_majors(decision, inspection)
    )


def other_majors(decision: Decision, inspection: Inspection) -> str:
    """List the libraries of other major versions: machines of one class may have several groups by them."""
    majors, _ = version_differences(decision.machine.versions, inspection.machine.versions)
    return majors


def difference(decision: Decision, inspection: Inspection) -> str:
    """Say how a dataset differs from that of a decision."""
    there, here = decision.dataset, inspection.dataset
    if there.type_name != here.type_name:
        return f"{here.type_name} instead of {there.type_name}"
    if there.length != here.length:
        return f"{here.length} samples instead of {there.length}"
    return "its samples have another structure"


def changes_since(spec: StudySpec, inspection: Inspection, decisions: Sequence[Decision]) -> list[str]:
    """Say what is not as it was when a decision was last taken on this very machine; nothing is run for it.

    Machines of one class share their decisions, but each has its own paths, and its own day of updates.
    """
    host = inspection.machine.host
    last = next((one for one in decisions if one.machine.host == host and answers(one, spec, inspection)), None)
    if last is None:
        return []
    told = []
    if None not in (last.fingerprint, inspection.fingerprint) and last.fingerprint != inspection.fingerprint:
        told.append("the files of the dataset have changed")
    versions = _other_versions(last.machine.versions, inspection.machine.versions)
    if versions:
        told.append(f"versions have changed: {versions}")
    if last.machine.driver != inspection.machine.driver:
        told.append(f"the driver has changed: {inspection.machine.driver} instead of {last.machine.driver}")
    return [f"{what} since {last.decided_at:%Y-%m-%d}" for what in told]


def _other_versions(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """List the libraries with other versions; one that came or went changes what can be read."""
    names = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
    return ", ".join(f"{name} {here.get(name, 'gone')} instead of {there.get(name, 'none')}" for name in names)
