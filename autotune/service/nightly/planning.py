"""What a night has to do for a study, and why: pure, from what is deployed and what one look at the dataset found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from pathlib import Path

from autotune.constants import SEARCH_RUNS_MIN
from autotune.registry import AUTOMATIC_ACTOR
from autotune.service.nightly.changes import answers, changes_since, difference, other_majors
from autotune.spec import Decision, DecisionEvent, Deployment, Inspection, StudySpec, Task, WaitingDecision

_VERDICTS = ("deployed", "approved", "rejected", "rolled_back")


class Need(IntEnum):
    """How much a study needs a search; a smaller number goes first."""

    ASKED_FOR = 0
    TAKEN_BACK = 1
    NOTHING_DEPLOYED = 2
    CHANGED = 3
    DRIFTED = 4
    NONE = 5


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the registry knows of a study.

    Attributes:
        deployments: What is deployed to its groups.
        waiting: What waits for a person.
        decisions: All its decisions, newest first.
        events: What became of them, newest first.
    """

    deployments: Sequence[Deployment] = ()
    waiting: Sequence[WaitingDecision] = ()
    decisions: Sequence[Decision] = ()
    events: Sequence[DecisionEvent] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done for a study.

    Attributes:
        spec: The study.
        file: Its file.
        task: `check`, or `search` at once.
        why: The reason, a sentence without its full stop.
        need: How much it needs a search.
        deployment: What is deployed for this dataset on this class of machine; None where nothing is.
        waiting: What waits for a person in its place; None where nothing does.
        run_s: What a run of it took in this night, in seconds; 0 where none was made.
    """

    spec: StudySpec
    file: Path
    task: Task
    why: str
    need: Need
    deployment: Deployment | None = None
    waiting: WaitingDecision | None = None
    run_s: float = 0.0

    @property
    def least_s(self) -> float:
        """What the fewest runs of a search take, in seconds, whatever its budget."""
        return SEARCH_RUNS_MIN * self.run_s

    @property
    def deployed(self) -> Decision | None:
        """The decision that is deployed."""
        return None if self.deployment is None else self.deployment.decision

    @property
    def decided_at(self) -> datetime | None:
        """When the deployed decision was taken."""
        return None if self.deployed is None else self.deployed.decided_at


def plan(
    spec: StudySpec,
    file: Path,
    inspection: Inspection,
    known: Known,
    *,
    began: datetime,
    asked_by: str | None = None,
) -> Plan:
    """Say what a study needs.

    Args:
        spec: The study.
        file: Its file.
        inspection: What one look at dataset and machine found.
        known: What the registry knows.
        began: When the night began: what it has taken back itself leads to a search.
        asked_by: Who asked for a search; None where nobody did.
    """
    here = [one for one in known.deployments if one.decision is not None and answers(one.decision, spec, inspection)]
    deployment = max(here, key=_decided_at, default=None)
    waiting = next((one for one in known.waiting if answers(one.decision, spec, inspection)), None)
    need, why = _need(spec, inspection, known, deployment, began=began)
    if asked_by is not None:
        need, why = Need.ASKED_FOR, f"{asked_by} asked for it"
    elif waiting is not None and need is not Need.TAKEN_BACK:
        need, why = Need.NONE, f"a decision of {waiting.since:%Y-%m-%d} waits for a review"
    return Plan(
        spec=spec,
        file=file,
        task="check" if need is Need.NONE else "search",
        why=why,
        need=need,
        deployment=deployment,
        waiting=waiting,
    )


def _need(
    spec: StudySpec, inspection: Inspection, known: Known, deployment: Deployment | None, *, began: datetime
) -> tuple[Need, str]:
    decision = None if deployment is None else deployment.decision
    taken_back = _taken_back(spec, inspection, known, began)
    if taken_back is not None:
        return Need.TAKEN_BACK, f"what was deployed was taken back this night: {taken_back.reason}"
    refused = _refused(spec, inspection, known)
    if decision is None and refused is None:
        return Need.NOTHING_DEPLOYED, _why_nothing(spec, inspection, known)
    changes = changes_since(spec, inspection, known.decisions)
    if decision is not None and decision.workload != spec.workload and not _judged(spec, refused, known):
        changes.insert(0, "the study file measures something else")
    if changes:
        return Need.CHANGED, "; ".join(changes)
    if decision is None and refused is not None:
        return Need.NONE, f"PyTorch's default is served, as {_told(refused)}"
    assert decision is not None  # noqa: S101  (the two cases without one have returned)
    if decision.outcome == "nothing_feasible":
        return Need.NOTHING_DEPLOYED, f"nothing was feasible on {decision.decided_at:%Y-%m-%d}"
    return (
        Need.NONE,
        f"decided on {decision.decided_at:%Y-%m-%d}, and nothing that is known beforehand has changed",
    )


def _refused(spec: StudySpec, inspection: Inspection, known: Known) -> DecisionEvent | None:
    """Give the last verdict about this dataset on this machine, where it is a person's no."""
    mine = {one.key for one in known.decisions if answers(one, spec, inspection)}
    last = next((event for event in known.events if event.decision_key in mine and event.action in _VERDICTS), None)
    refuses = last is not None and last.actor != AUTOMATIC_ACTOR and last.action in ("rejected", "rolled_back")
    return last if refuses else None


def _judged(spec: StudySpec, refused: DecisionEvent | None, known: Known) -> bool:
    """Tell whether a person has said no to what a search of this very workload came to."""
    return refused is not None and any(
        one.key == refused.decision_key and one.workload == spec.workload for one in known.decisions
    )


def _told(refused: DecisionEvent) -> str:
    what = "taken back what was deployed" if refused.action == "rolled_back" else "rejected what was found"
    return f"{refused.actor} has {what} on {refused.at:%Y-%m-%d}: {refused.reason}"


def _decided_at(deployment: Deployment) -> datetime:
    assert deployment.decision is not None  # noqa: S101  (only such are asked about)
    return deployment.decision.decided_at


def _taken_back(spec: StudySpec, inspection: Inspection, known: Known, began: datetime) -> DecisionEvent | None:
    """Find what this night has taken back before it was interrupted."""
    mine = {one.key for one in known.decisions if answers(one, spec, inspection)}
    last = next((event for event in known.events if event.decision_key in mine), None)
    if last is None or last.at < began:
        return None
    return last if (last.action, last.actor) == ("rolled_back", AUTOMATIC_ACTOR) else None


def _why_nothing(spec: StudySpec, inspection: Inspection, known: Known) -> str:
    """Say why nothing is deployed for this dataset on this machine."""
    if not known.decisions:
        return "it has never been tuned"
    if any(answers(one, spec, inspection) for one in known.decisions):
        return "nothing is deployed, as what was decided is no more or not yet"
    machine = inspection.machine.machine_class
    here = [one for one in known.decisions if one.machine.machine_class == machine]
    if not here:
        return f"it has never been tuned on this class of machine, {machine}"
    if all(one.dataset != inspection.dataset for one in here):
        return f"the dataset has changed: {difference(here[0], inspection)}"
    majors = [other_majors(one, inspection) for one in here if one.dataset == inspection.dataset]
    if all(majors):
        return f"major versions have changed: {majors[0]}"
    return "it has never been tuned with this consumer"
