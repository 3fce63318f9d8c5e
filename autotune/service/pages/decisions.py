"""Pages of decisions: those that wait for a person, and one with its evidence and what can be decided about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from autotune.registry import Registry
from autotune.service.pages.addresses import named
from autotune.service.pages.history import Happening, history_of
from autotune.service.pages.rendering import page
from autotune.service.pages.studies import elsewhere
from autotune.service.problems import not_found
from autotune.service.state import service_of
from autotune.spec import AccessToken, Decision, DecisionEvent, Deployment
from autotune.tracking.report import StudyEvidence, finding
from autotune.tracking.report.evidence import COMPARED, TRIALS_MAX
from autotune.tracking.report.parts import FindingPart, finding_part

Standing = Literal["waiting", "deployed", "other"]
"""Whether a decision waits for a person, is deployed, or is neither, as it was rejected or replaced."""

_EARLIER_MAX = 30
"""Earlier decisions that the form for rolling back offers."""
_COMPARED_MAX = 1000
"""Race and confirm runs that are read to find those of one run, of which it has at most 130: other machines of the
class may have run theirs beside it."""


@dataclass(frozen=True, kw_only=True)
class DecisionView:
    """What the page of a decision shows.

    Attributes:
        decision: The decision.
        deployment: What is deployed to those who ask the same question.
        standing: How it stands.
        waits_because: Why it waits; empty where it does not.
        found: Its evidence, as the report shows it.
        history: What became of its group, newest first.
        before: What rolling back would deploy; None is PyTorch's default.
        earlier: Further decisions that can be deployed again.
    """

    decision: Decision
    deployment: Deployment
    standing: Standing
    waits_because: str
    found: FindingPart
    history: Sequence[Happening]
    before: Decision | None
    earlier: Sequence[Decision]


async def show_waiting(request: Request, visitor: AccessToken) -> Response:
    """Show what waits for a person, longest first, beside what is deployed meanwhile."""
    service = service_of(request)

    def work() -> Response:
        waiting = service.registry.waiting()
        return page(request, "waiting", title="Waiting for review", visitor=visitor, part="waiting", waiting=waiting)

    return await service.show(work)


async def show_decision(request: Request, visitor: AccessToken) -> Response:
    """Show one decision: what was found, on what evidence, what became of it, and what can be decided."""
    service, key = service_of(request), named(request, "key")

    def work() -> Response:
        view = view_of(service.registry, key)
        return page(
            request,
            "decision",
            title=f"{view.decision.study}: {view.decision.config.label()}",
            visitor=visitor,
            part="waiting" if view.standing == "waiting" else "studies",
            draws=bool(view.found.drawings),
            view=view,
            may_review=visitor.opens("review", at=datetime.now(UTC)),
            elsewhere=elsewhere(service, request, view.decision.study),
        )

    return await service.show(work)


def view_of(registry: Registry, key: str) -> DecisionView:
    """Read what the page of a decision shows.

    Raises:
        HTTPException: There is no such decision.
    """
    decision = registry.decision(key)
    if decision is None:
        raise not_found(f"There is no decision {key!r}.")
    deployment = registry.deployment_of(key)
    waits = next((one for one in registry.waiting(decision.study) if one.decision.key == key), None)
    deployed = deployment.decision is not None and deployment.decision.key == key
    events = [event for event in registry.events(decision.study) if event.group == deployment.group]
    before = registry.deployed_before(key) if deployed else None
    return DecisionView(
        decision=decision,
        deployment=deployment,
        standing="waiting" if waits else "deployed" if deployed else "other",
        waits_because=waits.reason if waits else "",
        found=_found(registry, decision, deployment, events),
        history=history_of(registry, events),
        before=before,
        earlier=_earlier(registry, events, {key, *([before.key] if before else [])}) if deployed else (),
    )


def _found(
    registry: Registry, decision: Decision, deployment: Deployment, events: Sequence[DecisionEvent]
) -> FindingPart:
    trials, unread = registry.records_behind(decision, ["search"], limit=TRIALS_MAX)
    compared, _ = registry.records_behind(decision, COMPARED, limit=_COMPARED_MAX)
    evidence = StudyEvidence(
        study=decision.study,
        decisions=registry.decisions(decision.study),
        records=[*trials, *compared],
        events=events,
        deployments=[deployment],
        unread=unread,
    )
    return finding_part(finding(evidence, decision), anchor="figure", address=None)


def _earlier(registry: Registry, events: Sequence[DecisionEvent], apart_from: set[str]) -> list[Decision]:
    """Give the decisions of a group, newest first, of each configuration the newest one."""
    keys = {event.decision_key for event in events} - apart_from
    newest: dict[str, Decision] = {}
    for decision in registry.decisions_of(keys):
        newest.setdefault(decision.config.to_json(), decision)
    return list(newest.values())[:_EARLIER_MAX]
