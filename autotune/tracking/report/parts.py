"""The parts of a page, put together from evidence: one for each study, with one for each of its findings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autotune.service_address import decision_page
from autotune.spec import Decision, DecisionEvent, Deployment
from autotune.tracking.figures import study_figures
from autotune.tracking.report.evidence import Finding, StudyEvidence, findings
from autotune.tracking.report.tables import (
    ComparedRow,
    HistoryRow,
    TrialRow,
    compared_rows,
    history_rows,
    trial_rows,
)
from autotune.tracking.report.verdict import Facts, Verdict, chosen_facts, circumstances, verdict_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TRIALS_SHOWN_MAX = 300
"""Rows of the table of trials; the newest are shown. The figures have more, the registry has all."""

CAPTIONS: Mapping[str, str] = {
    "confirm-runs": "Each point is one fresh process. Chosen and default ran in turn, so that drift meets both.",
    "throughput-by-parameter": "Each point is one trial of the search; the axis of rates is logarithmic.",
    "trial-history": "Bars are 95 % intervals within one process. The best of many noisy trials flatters itself, so "
    "single trials only choose what is compared.",
    "stage-breakdown": "From the probe: what one thread spends on a batch. Workers divide all but hand over and "
    "consume.",
    "rate-against-memory": "On the line nothing is faster with less memory; the colour is the number of workers.",
    "memory-by-batch-size": "Crosses broke the limit or failed.",
    "phase-breakdown": "Building archives, filling caches and warming up never count in a rate.",
}
"""What each figure shows, in the order in which a page has them."""
_WIDE = frozenset({"throughput-by-parameter"})


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure with its place on the page.

    Attributes:
        anchor: Its identifier on the page.
        title: Its own title, which the page shows as a heading.
        caption: What it shows.
        figure: What plotly draws.
        wide: Whether it is of use only in some width, and scrolls where the screen has less.
    """

    anchor: str
    title: str
    caption: str
    figure: Figure
    wide: bool


@dataclass(frozen=True, kw_only=True)
class FindingPart:
    """What a page shows of one finding.

    Attributes:
        title: Class of machine and consumer.
        verdict: What was decided; None where nothing was yet.
        deployed: What is deployed, in a sentence; empty where that is not known.
        facts: What is known of the chosen configuration.
        notes: What the phases came to.
        compared: Race and confirm runs by configuration.
        trials: Trials of the search.
        trials_left_out: Further ones that are not listed.
        trials_undrawn: Those among them that are in no figure either.
        trials_drawn: Trials that the figures have.
        earlier: Trials that an earlier run measured.
        circumstances: Where, when, on what.
        drawings: Its figures.
        page: Address of the decision's page in the service; None where no service is known.
    """

    title: str
    verdict: Verdict | None = None
    deployed: str = ""
    facts: Facts = ()
    notes: Sequence[str] = ()
    compared: Sequence[ComparedRow] = ()
    trials: Sequence[TrialRow] = ()
    trials_left_out: int = 0
    trials_undrawn: int = 0
    trials_drawn: int = 0
    earlier: int = 0
    circumstances: Facts = ()
    drawings: Sequence[Drawing] = ()
    page: str | None = None


@dataclass(frozen=True, kw_only=True)
class StudyPart:
    """What a page shows of one study."""

    study: str
    anchor: str
    findings: Sequence[FindingPart] = field(default=())
    history: Sequence[HistoryRow] = field(default=())


def study_part(evidence: StudyEvidence, *, address: str | None) -> StudyPart:
    """Put together what a page shows of a study.

    Args:
        evidence: What is known of it.
        address: Address of the service whose pages decisions link to; None links to nothing.
    """
    anchor = anchor_of(evidence.study)
    return StudyPart(
        study=evidence.study,
        anchor=anchor,
        findings=tuple(
            finding_part(finding, anchor=f"{anchor}-{number}", address=address)
            for number, finding in enumerate(findings(evidence))
        ),
        history=history_rows(evidence),
    )


def anchor_of(study: str) -> str:
    """Give a study's place on the page: names of studies may hold what an anchor may not."""
    return "study-" + re.sub(r"[^A-Za-z0-9._-]", lambda found: f"~{ord(found[0]):x}", study)


def finding_part(finding: Finding, *, anchor: str, address: str | None) -> FindingPart:
    """Put together what a page shows of one finding.

    Args:
        finding: What is known of it.
        anchor: Begins the identifiers of its figures.
        address: Address of the service whose page of the decision is linked to; None links to nothing.
    """
    decision = finding.decision
    trials = trial_rows(finding.trials, decision.config if decision else None)
    part: dict[str, Any] = {
        "trials": trials[-TRIALS_SHOWN_MAX:],
        "trials_left_out": max(0, len(trials) - TRIALS_SHOWN_MAX) + finding.left_out,
        "trials_undrawn": finding.left_out,
        "trials_drawn": len(trials),
        "drawings": _drawings(finding, anchor),
    }
    if decision is None:
        return FindingPart(title="no decision yet", **part)
    return FindingPart(
        **part,
        title=f"{decision.machine.machine_class}, consumer {decision.workload.consumer.kind}",
        verdict=verdict_of(decision),
        deployed=_deployed(decision, finding.deployment, finding.taken_back),
        facts=chosen_facts(decision),
        notes=decision.notes,
        compared=compared_rows(finding.compared, decision),
        earlier=finding.earlier,
        circumstances=circumstances(decision),
        page=decision_page(address, decision.key) if address else None,
    )


def _deployed(decision: Decision, deployment: Deployment | None, taken_back: DecisionEvent | None) -> str:
    if deployment is None:
        return ""
    served, pinned = deployment.decision, ", pinned" if deployment.pinned else ""
    if served is None and taken_back is not None:
        return (
            f"Nothing is deployed{pinned}: {taken_back.actor} took back what was, on {taken_back.at:%Y-%m-%d %H:%M} "
            "UTC, and training gets the safe default."
        )
    if served is None:
        return "Nothing is deployed yet: training gets the safe default until somebody approves a decision."
    if served.key == decision.key:
        return f"This is what is deployed{pinned}."
    return (
        f"Deployed is {served.config.label()}{pinned}, by the decision of {served.decided_at:%Y-%m-%d %H:%M} UTC, "
        "not this newer one; the history says why."
    )


def _drawings(finding: Finding, anchor: str) -> tuple[Drawing, ...]:
    figures = study_figures(finding.records, finding.decision)
    return tuple(
        Drawing(
            anchor=f"{anchor}-{identifier}",
            title=figures[identifier].layout.title.text,
            caption=caption,
            figure=figures[identifier],
            wide=identifier in _WIDE,
        )
        for identifier, caption in CAPTIONS.items()
        if identifier in figures and figures[identifier].data
    )
