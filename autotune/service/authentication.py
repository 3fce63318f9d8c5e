"""Who sends a request: a token in `Authorization: Bearer`, and what it may do."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from autotune.errors import RegistryError
from autotune.service.limits import parse_rate
from autotune.service.problems import RETRY_S, refused
from autotune.service.settings import FAILED_LOGINS
from autotune.service.state import Service, service_of
from autotune.service.tokens import digest_of
from autotune.spec import AccessToken, Scope

_LOG = logging.getLogger(__name__)

GUARDED = ("/v1/", "/metrics/")
"""Paths that need a token, whether there is anything at them or not."""
_FAILED = parse_rate(FAILED_LOGINS)
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="autotune"'}
_BEARER = HTTPBearer(
    auto_error=False, description="A token that `autotune token create` printed; its scopes say what it may do."
)
_CALLER = "caller"


class Authentication:
    """Lets nobody near the routes of the API without a token that opens.

    It comes before the routes, so that a body of somebody unknown is not even parsed.

    Args:
        app: What comes next.
        service: Knows the tokens.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass a request on with its caller, or refuse it."""
        if scope["type"] == "http" and f"{scope['path']}/".startswith(GUARDED):
            found = await self._caller(scope)
            if isinstance(found, Response):
                return await found(scope, receive, send)
            scope.setdefault("state", {})[_CALLER] = found
        return await self._app(scope, receive, send)

    async def _caller(self, scope: AsgiScope) -> AccessToken | Response:
        kind, _, text = Headers(scope=scope).get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not text.strip():
            return self._refuse(scope, "a token is needed: Authorization: Bearer …")
        try:
            holder = await self._service.holder(digest_of(text.strip()))
        except RegistryError:
            return refused(503, "the registry cannot be read at the moment; ask again", {"Retry-After": str(RETRY_S)})
        if holder is None:
            return self._refuse(scope, "this token opens nothing: it is unknown, expired or revoked")
        wait_s = self._service.rates.wait_s(self._service.rate, "token", holder.name)
        if wait_s is not None:
            return _too_many(wait_s)
        return holder

    def _refuse(self, scope: AsgiScope, detail: str) -> Response:
        client = (scope.get("client") or ("unknown", 0))[0]
        wait_s = self._service.rates.wait_s(_FAILED, "failed", client)
        if wait_s is not None:
            return _too_many(wait_s)
        _LOG.info("refused a request of %s: %s", client, detail)
        return refused(401, detail, _CHALLENGE)


def requires(scope: Scope) -> Callable[..., Awaitable[AccessToken]]:
    """Give the dependency that lets tokens with a scope pass, and tells who it is.

    What needs more than `read` changes something: fewer of those requests are let through.
    """

    async def caller(
        request: Request, _documented: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
    ) -> AccessToken:
        found: AccessToken = getattr(request.state, _CALLER)
        if not found.opens(scope, at=datetime.now(UTC)):
            raise HTTPException(403, f"this needs a token with the scope {scope!r}, which {found.name!r} has not")
        service = service_of(request)
        wait_s = None if scope == "read" else service.rates.wait_s(service.changes, "changes", found.name)
        if wait_s is not None:
            raise HTTPException(429, _wait(wait_s), {"Retry-After": str(wait_s)})
        return found

    return caller


def _too_many(wait_s: int) -> Response:
    return refused(429, _wait(wait_s), {"Retry-After": str(wait_s)})


def _wait(wait_s: int) -> str:
    return f"too many requests; the next may come in {wait_s} s"
