"""optuna-dashboard behind the login of the service: to be looked at, with nothing in it that changes anything."""

from __future__ import annotations

from typing import Any

from a2wsgi import WSGIMiddleware
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autotune.errors import RegistryError
from autotune.service.dashboard import Dashboard
from autotune.service.limits import KnownHosts, host_of
from autotune.service.pages.visitors import LoginNeededError, visitor_of
from autotune.service.problems import RETRY_S, refused
from autotune.service.state import Service

_LOOKING = frozenset({"GET", "HEAD"})
_THREADS = 4
_READ_ONLY = "this dashboard is to be looked at; what is deployed is decided on the pages of autotune"
_NOT_READING = "this needs a token with the scope 'read'"
_HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'; form-action 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def guarded_dashboard(dashboard: Dashboard, service: Service, *, login_port: int) -> ASGIApp:
    """Give optuna-dashboard as an ASGI application for those who have logged in.

    Args:
        dashboard: The dashboard.
        service: Knows who has logged in.
        login_port: Port of the service's own pages.
    """
    # its routes are called from threads; Starlette's own way to do so is deprecated
    application: Any = dashboard.optuna.application()
    inner: Any = WSGIMiddleware(application, workers=_THREADS)
    return KnownHosts(_Guard(inner, service, login_port), service.settings.allowed_hosts)


class _Guard:
    def __init__(self, app: ASGIApp, service: Service, login_port: int) -> None:
        self._app = app
        self._service = service
        self._login_port = login_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # the dashboard has none, and uvicorn goes on without
            return None
        refusal = await self._refusal(HTTPConnection(scope), scope["method"])
        if refusal is not None:
            return await refusal(scope, receive, send)

        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.append(name, value)  # beside its own policy, which has to hold as well
            await send(message)

        return await self._app(scope, receive, adding)

    async def _refusal(self, connection: HTTPConnection, method: str) -> Response | None:
        """Say why a request goes no further; None where it does."""
        if method not in _LOOKING:
            return refused(403, _READ_ONLY)
        try:
            visitor = await visitor_of(self._service, connection)
        except LoginNeededError:
            return RedirectResponse(self._login(connection), 303)
        except RegistryError:
            return refused(503, "the registry cannot be read at the moment", {"Retry-After": str(RETRY_S)})
        return None if "read" in visitor.scopes else refused(403, _NOT_READING)

    def _login(self, connection: HTTPConnection) -> str:
        """Give the address of the login: behind a proxy with TLS only the address that people use leads there."""
        settings = self._service.settings
        if settings.is_secure:
            return f"{(settings.service_url or '').rstrip('/')}/login"
        return f"http://{host_of(connection.headers['host'])}:{self._login_port}/login"
