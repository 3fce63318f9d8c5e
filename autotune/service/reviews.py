"""What is deployed, what waits for a person, and what persons decide about it, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from autotune.registry import Registry
from autotune.service.authentication import requires
from autotune.service.documents import (
    DecisionDocument,
    Deployments,
    EventDocument,
    Events,
    Key,
    LimitQuery,
    ReasonedReview,
    Received,
    Review,
    Rollback,
    StudyName,
    Waiting,
    outgoing,
)
from autotune.service.problems import documented, not_found
from autotune.service.state import service_of
from autotune.spec import AccessToken, DecisionEvent

router = APIRouter(prefix="/v1", tags=["review"])

_READ = Depends(requires("read"))
_Reviewer = Annotated[AccessToken, Depends(requires("review"))]
_DECIDED = documented(404, 409)


@router.get("/deployments", responses=documented(), dependencies=[_READ])
async def deployments(request: Request, _query: Annotated[Received, Query()]) -> Deployments:
    """Give what is deployed to each group of questions, with the version that a change of it must name."""
    service = service_of(request)
    return Deployments(deployments=await service.read(service.registry.deployments))


@router.get("/waiting", responses=documented(), dependencies=[_READ])
async def waiting(request: Request, _query: Annotated[Received, Query()]) -> Waiting:
    """Give the decisions that wait for a person, longest first."""
    service = service_of(request)
    return Waiting(waiting=await service.read(service.registry.waiting))


@router.get("/studies/{study}/events", responses=documented(), dependencies=[_READ])
async def events(request: Request, study: StudyName, query: Annotated[LimitQuery, Query()]) -> Events:
    """Give what became of a study's decisions, newest first; nothing where there is no such study."""
    service = service_of(request)
    return Events(events=await service.read(lambda: service.registry.events(study, limit=query.limit)))


@router.get("/decisions/{key}", responses=documented(404), dependencies=[_READ])
async def decision(request: Request, key: Key) -> DecisionDocument:
    """Give a decision with its evidence, what is deployed in its place or beside it, and what became of it."""
    registry = service_of(request).registry

    def work() -> DecisionDocument:
        found = registry.decision(key)
        if found is None:
            raise not_found(f"there is no decision {key!r}")
        history = registry.events(decision=key)
        return DecisionDocument(decision=found, deployment=registry.deployment_of(key), events=history)

    return await service_of(request).read(work)


@router.post("/decisions/{key}/approve", responses=_DECIDED)
async def approve(request: Request, key: Key, given: Review, reviewer: _Reviewer) -> EventDocument:
    """Deploy a decision that waits."""
    return await _decided(request, key, lambda registry: registry.approve(key, actor=reviewer.name, **_of(given)))


@router.post("/decisions/{key}/reject", responses=_DECIDED)
async def reject(request: Request, key: Key, given: ReasonedReview, reviewer: _Reviewer) -> EventDocument:
    """Have what is deployed stay, rather than a decision that waits; needs a reason."""
    return await _decided(request, key, lambda registry: registry.reject(key, actor=reviewer.name, **_of(given)))


@router.post("/decisions/{key}/pin", responses=_DECIDED)
async def pin(request: Request, key: Key, given: ReasonedReview, reviewer: _Reviewer) -> EventDocument:
    """Have what is deployed stay, whatever later studies find; needs a reason."""
    return await _decided(request, key, lambda registry: registry.pin(key, actor=reviewer.name, **_of(given)))


@router.post("/decisions/{key}/unpin", responses=_DECIDED)
async def unpin(request: Request, key: Key, given: Review, reviewer: _Reviewer) -> EventDocument:
    """Let later studies change what is deployed again."""
    return await _decided(request, key, lambda registry: registry.unpin(key, actor=reviewer.name, **_of(given)))


@router.post("/decisions/{key}/rollback", responses=_DECIDED)
async def rollback(request: Request, key: Key, given: Rollback, reviewer: _Reviewer) -> EventDocument:
    """Deploy what was deployed before, an earlier decision, or PyTorch's default; needs a reason."""
    return await _decided(
        request, key, lambda registry: registry.roll_back(key, to=given.to, actor=reviewer.name, **_of(given))
    )


def _of(given: Review) -> dict[str, Any]:
    return {"reason": given.reason, "expected_version": given.expected_version}


async def _decided(request: Request, key: str, work: Callable[[Registry], DecisionEvent]) -> EventDocument:
    registry = service_of(request).registry

    def decide() -> DecisionEvent:
        if registry.decision(key) is None:
            raise not_found(f"there is no decision {key!r}")
        return work(registry)

    return EventDocument.model_validate(outgoing(await service_of(request).read(decide)))
