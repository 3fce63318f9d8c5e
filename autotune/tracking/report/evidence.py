"""What a report rests on: decisions of a study, and the records behind each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from autotune.spec import Decision, DecisionEvent, Deployment, TrialRecord

FINDINGS_MAX = 6
"""Parts of a report about one study, each for a class of machine and a workload: the newest are shown."""

TRIALS_MAX = 1000
"""Trials of the search that a finding has, the newest: a page with many thousands of points helps nobody, and takes
long to draw."""

COMPARED = ("race", "confirm")
"""Phases whose runs a decision is drawn from, of the machines that measured for it alone."""


class EvidenceStore(Protocol):
    """Where evidence is kept; the registry is one."""

    def records(self, study: str) -> Sequence[TrialRecord]:
        """Give the records of a study in the order in which they were started."""

    def decisions(self, study: str | None = None, limit: int | None = None) -> Sequence[Decision]:
        """Give decisions, newest first: of one study or of all."""

    def events(self, study: str) -> Sequence[DecisionEvent]:
        """Give what became of a study's decisions, newest first."""

    def deployments(self, study: str | None = None) -> Sequence[Deployment]:
        """Give what is deployed: of one study or of all."""


@dataclass(frozen=True, kw_only=True)
class StudyEvidence:
    """Everything that is known of a study.

    Attributes:
        study: Its name.
        decisions: Its decisions, newest first.
        records: Its records.
        events: What became of its decisions.
        deployments: What is deployed of it.
        unread: Older trials of the search that were not read, as there are too many to be shown.
    """

    study: str
    decisions: Sequence[Decision]
    records: Sequence[TrialRecord]
    events: Sequence[DecisionEvent] = ()
    deployments: Sequence[Deployment] = ()
    unread: int = 0

    def as_of(self, decision: Decision) -> StudyEvidence:
        """Give what was known when a decision was drawn and settled, whatever came later; no clock is asked."""
        settled = min((event.number for event in self.events if event.decision_key == decision.key), default=0)
        return StudyEvidence(
            study=self.study,
            decisions=tuple(other for other in self.decisions if other.decided_at <= decision.decided_at),
            records=self.records,
            events=tuple(event for event in self.events if event.number <= settled),
        )


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The newest decision about one workload on one class of machine, and what it rests on.

    Attributes:
        decision: The decision; None where none was come to yet.
        trials: Records of the search under the same circumstances, at most the newest `TRIALS_MAX`; earlier runs of the
            study are known to later ones.
        compared: Records of race and confirm of this run alone: what the decision was drawn from.
        earlier: Trials that an earlier run measured.
        left_out: Older trials that are not among `trials`.
        deployment: What is deployed where the decision would be; None where nothing is known of that.
        taken_back: How what was deployed there came to be taken back, where nothing is since; None else.
    """

    decision: Decision | None
    trials: Sequence[TrialRecord]
    compared: Sequence[TrialRecord]
    earlier: int = 0
    left_out: int = 0
    deployment: Deployment | None = None
    taken_back: DecisionEvent | None = None

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """All of them, as the figures take them."""
        return (*self.trials, *self.compared)


def gather(store: EvidenceStore, study: str) -> StudyEvidence:
    """Read everything that is known of a study."""
    return StudyEvidence(
        study=study,
        decisions=tuple(store.decisions(study)),
        records=tuple(store.records(study)),
        events=tuple(store.events(study)),
        deployments=tuple(store.deployments(study)),
    )


def findings(evidence: StudyEvidence) -> tuple[Finding, ...]:
    """Give what a study found, newest first: one finding for each workload and class of machine.

    A study that has records and no decision, as one that still runs, has one finding without a decision.
    """
    newest = {_circumstances(decision): decision for decision in reversed(evidence.decisions)}
    decided = sorted(newest.values(), key=lambda decision: decision.decided_at, reverse=True)
    if decided:
        return tuple(finding(evidence, decision) for decision in decided[:FINDINGS_MAX])
    searched = tuple(record for record in evidence.records if record.phase == "search")
    compared = tuple(record for record in evidence.records if record.phase in COMPARED)
    left_out = max(0, len(searched) - TRIALS_MAX)
    undecided = Finding(decision=None, trials=searched[left_out:], compared=compared, left_out=left_out)
    return (undecided,) if evidence.records else ()


def finding(evidence: StudyEvidence, decision: Decision) -> Finding:
    """Give a decision with the records that were there when it was drawn."""
    before = [
        other
        for other in evidence.decisions
        if _circumstances(other) == _circumstances(decision) and other.decided_at < decision.decided_at
    ]
    since = max((other.decided_at for other in before), default=None)
    here = [other.decided_at for other in before if _hosts(other) & _hosts(decision)]
    begun = max(here, default=None)
    records = [record for record in evidence.records if _is_behind(record, decision)]
    searched = tuple(record for record in records if record.phase == "search")
    trials = searched[-TRIALS_MAX:]
    left_out = len(searched) - len(trials) + evidence.unread
    earlier = 0 if since is None else sum(record.started_at <= since for record in trials)
    return Finding(
        decision=decision,
        trials=trials,
        compared=tuple(
            record for record in records if record.phase in COMPARED and (begun is None or record.started_at > begun)
        ),
        earlier=earlier + left_out if earlier else 0,  # what is older than an earlier run's trials is one of them too
        left_out=left_out,
        deployment=_deployment(evidence, decision),
        taken_back=_taken_back(evidence, decision),
    )


def _deployment(evidence: StudyEvidence, decision: Decision) -> Deployment | None:
    groups = {event.group for event in evidence.events if event.decision_key == decision.key}
    return next((deployment for deployment in evidence.deployments if deployment.group in groups), None)


def _taken_back(evidence: StudyEvidence, decision: Decision) -> DecisionEvent | None:
    deployment = _deployment(evidence, decision)
    if deployment is None or deployment.decision is not None:
        return None
    back = [event for event in evidence.events if event.group == deployment.group and event.action == "rolled_back"]
    return max(back, key=lambda event: event.number, default=None)


def _circumstances(decision: Decision) -> tuple[str, str]:
    return decision.machine.machine_class, decision.workload.digest()


def _is_behind(record: TrialRecord, decision: Decision) -> bool:
    """Whether a record was measured under a decision's circumstances, before it was drawn.

    What the search measured is known to all machines of a class; race and confirm are of those that measured for it.
    """
    there = record.machine.host if record.machine is not None else decision.machine.host
    return (
        record.started_at <= decision.decided_at
        and record.workload == decision.workload
        and (record.dataset is None or record.dataset == decision.dataset)
        and (record.machine is None or record.machine.machine_class == decision.machine.machine_class)
        and (record.phase not in COMPARED or there in _hosts(decision))
    )


def _hosts(decision: Decision) -> set[str]:
    return {decision.machine.host, *decision.other_hosts}
