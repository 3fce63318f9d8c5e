"""Studies that are asked for over HTTP: names of files that the operator laid out, never code and never a path."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from autotune.service.authentication import requires
from autotune.service.documents import Key, Queue, QueuedStudyDocument, Received, StudyRequest, outgoing
from autotune.service.problems import documented, not_found
from autotune.service.state import service_of
from autotune.spec import AccessToken, QueuedStudy

router = APIRouter(prefix="/v1", tags=["queue"])

_READ = Depends(requires("read"))


@router.post(
    "/studies",
    status_code=202,
    responses={202: {"model": QueuedStudyDocument, "description": "It is queued."}, **documented(404)},
)
async def queue_study(
    request: Request, wanted: StudyRequest, caller: Annotated[AccessToken, Depends(requires("tune"))]
) -> Response:
    """Queue a study for the next nightly run; one that waits already is not queued twice."""
    service = service_of(request)
    allowed = await service.read(service.settings.study_files)
    if wanted.study not in allowed:
        known = ", ".join(allowed) or "none, as the service was started without --studies"
        raise not_found(f"{wanted.study!r} is none of the studies that may be queued: {known}")
    entry = QueuedStudy(study=wanted.study, requested_by=caller.name, requested_at=datetime.now(UTC))
    queued = await service.read(lambda: service.registry.queue_study(entry))
    return JSONResponse(outgoing(queued), 202, headers={"Location": f"/v1/queue/{queued.key}"})


@router.get("/queue", responses=documented(), dependencies=[_READ])
async def queue(request: Request, _query: Annotated[Received, Query()]) -> Queue:
    """Give the studies that wait for a machine, in the order in which they were asked for."""
    service = service_of(request)
    return Queue(queue=await service.read(lambda: service.registry.queued_studies("queued")))


@router.delete("/queue/{key}", responses=documented(404, 409))
async def cancel_study(
    request: Request, key: Key, caller: Annotated[AccessToken, Depends(requires("tune"))]
) -> QueuedStudyDocument:
    """Have a study that waits for a machine not run, whoever asked for it; one that runs goes on."""
    service = service_of(request)
    found = await service.read(lambda: service.registry.cancel_queued_study(key, by=caller.name, at=datetime.now(UTC)))
    if found is None:
        raise not_found(f"nothing was queued under {key!r}")
    return QueuedStudyDocument.model_validate(outgoing(found))


@router.get("/queue/{key}", responses=documented(404), dependencies=[_READ])
async def queued_study(request: Request, key: Key) -> QueuedStudyDocument:
    """Say how far a study is that somebody asked for."""
    service = service_of(request)
    found = await service.read(lambda: service.registry.queued_study(key))
    if found is None:
        raise not_found(f"nothing was queued under {key!r}")
    return QueuedStudyDocument.model_validate(outgoing(found))
