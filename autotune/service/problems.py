"""What every refusal looks like: one JSON document with one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import BaseRoute, Match, Route

from autotune.errors import ConflictError, RegistryError, SpecError

Responses = dict[int | str, dict[str, Any]]
"""What the OpenAPI document says of statuses, in FastAPI's form."""

RETRY_S = 2
"""Seconds after which a client is told to ask again where the registry is away."""
_SHOWN_MAX = 200
"""Characters of a value that a message repeats."""


class Problem(BaseModel):
    """Why a request was refused.

    Attributes:
        detail: The rule, the value, and what helps.
    """

    detail: str


def documented(*statuses: int) -> Responses:
    """Give what the OpenAPI document says of these statuses, and of those that any request can meet."""
    told = {
        400: "The request is no HTTP that makes sense.",
        401: "There is no token, or it opens nothing (any more).",
        403: "The token may not do this, or the Host is none of the service's.",
        404: "There is no such thing.",
        409: "Somebody else decided first.",
        413: "The body is too large.",
        422: "The request breaks a rule.",
        429: "Too many requests; Retry-After says when the next may come.",
        503: "The registry cannot be read at the moment.",
    }
    everywhere = (400, 401, 403, 413, 422, 429, 503)
    responses: Responses = {
        status: {"model": Problem, "description": told[status]} for status in sorted({*everywhere, *statuses})
    }
    responses[413]["content"] = {"text/plain": {"schema": {"type": "string"}}}  # Starlette's own words
    return responses


def refused(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Give the response that refuses a request."""
    return JSONResponse({"detail": detail}, status, headers=dict(headers or {}))


def add_handlers(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Turn what requests can raise into refusals.

    Args:
        app: The application.
        routes: All that it answers.
    """

    @app.exception_handler(StarletteHTTPException)
    async def _http(request: Request, error: StarletteHTTPException) -> JSONResponse:
        headers = {"Allow": _allowed(routes, request)} if error.status_code == 405 else error.headers
        return refused(error.status_code, str(error.detail), headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return refused(422, _told(error))

    @app.exception_handler(ConflictError)
    async def _conflict(_request: Request, error: ConflictError) -> JSONResponse:
        return refused(409, str(error))

    @app.exception_handler(SpecError)
    async def _broken_rule(_request: Request, error: SpecError) -> JSONResponse:
        return refused(422, str(error))

    @app.exception_handler(RegistryError)
    async def _registry_away(_request: Request, _error: RegistryError) -> JSONResponse:
        # the message names the place of the registry, which is nobody's business out there; the log has it
        return refused(503, "the registry cannot be read at the moment; ask again", {"Retry-After": str(RETRY_S)})


def not_found(detail: str) -> HTTPException:
    """Give the error for something that is not there."""
    return HTTPException(404, detail)


def _allowed(routes: Iterable[BaseRoute], request: Request) -> str:
    """Name all methods of a path; Starlette names those of the first route alone."""
    matching = (route for route in routes if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE)
    return ", ".join(sorted(set().union(*(route.methods or () for route in matching))))


def _told(error: RequestValidationError) -> str:
    """Put the first complaint on one line: where, the rule, and the value."""
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"])
    shown = repr(found.get("input"))
    return f"{where}: {found['msg']}, got {shown[:_SHOWN_MAX]}{'…' if len(shown) > _SHOWN_MAX else ''}"
