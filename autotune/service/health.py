"""`/healthz` for whoever starts and stops the service, and `/metrics` for Prometheus."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from autotune.service.authentication import requires
from autotune.service.documents import Document, Received
from autotune.service.problems import documented
from autotune.service.state import service_of

router = APIRouter(tags=["operation"])


class Health(Document):
    """The service answers, and so does its registry.

    Attributes:
        status: `ok`; anything else is a status of HTTP.
    """

    status: Literal["ok"] = "ok"


@router.get("/healthz", responses=documented())
async def healthz(request: Request, _query: Annotated[Received, Query()]) -> Health:
    """Say that the service can answer: 503 while its registry cannot be read."""
    service = service_of(request)
    await service.watch.fresh()
    return Health()


@router.get(
    "/metrics",
    responses={**documented(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    response_class=Response,
    dependencies=[Depends(requires("read"))],
)
async def metrics(request: Request, _query: Annotated[Received, Query()]) -> Response:
    """Give figures for Prometheus: requests, their times, answers that were kept, age of what is known."""
    return Response(service_of(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
