"""Who looks at a page, and whether a form came from one of our own pages."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from autotune.service.limits import host_of, parse_rate
from autotune.service.sessions import COOKIE
from autotune.service.settings import FAILED_LOGINS
from autotune.service.state import Service, service_of
from autotune.spec import AccessToken, Scope

_FAILED = parse_rate(FAILED_LOGINS)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<place>\S+)")


class LoginNeededError(Exception):
    """Nobody has logged in, or the token of whoever did opens nothing any more."""


async def visitor_of(service: Service, connection: HTTPConnection) -> AccessToken:
    """Give the token of whoever has logged in, as it is in the registry now.

    Raises:
        LoginNeededError: Nobody has.
        RegistryError: Nobody can tell.
    """
    digest = service.sessions.digest(connection.cookies.get(COOKIE))
    visitor = None if digest is None else await service.holder(digest)
    if visitor is None:
        raise LoginNeededError
    return visitor


def check_scope(visitor: AccessToken, scope: Scope) -> None:
    """Refuse whoever may not do something.

    Raises:
        HTTPException: 403.
    """
    if not visitor.opens(scope, at=datetime.now(UTC)):
        raise HTTPException(403, f"This needs a token with the scope {scope}, which {visitor.name} does not have.")


def check_rates(service: Service, visitor: AccessToken, *, changes: bool) -> None:
    """Count a request, and refuse one too many.

    Raises:
        HTTPException: 429.
    """
    limits = [(service.rate, "token"), *([(service.changes, "changes")] if changes else [])]
    for limit, what in limits:
        _refuse_after(service.rates.wait_s(limit, what, visitor.name))


def check_guesses(request: Request) -> None:
    """Count a token that opened nothing, and refuse further ones where there were too many.

    Raises:
        HTTPException: 429.
    """
    client = request.client.host if request.client else "unknown"
    _refuse_after(service_of(request).rates.wait_s(_FAILED, "failed", client))


def check_origin(request: Request) -> None:
    """Refuse a form that another site sent: what a browser says of where it was must be the Host that it asked.

    Raises:
        HTTPException: 403.
    """
    sent = _ORIGIN.fullmatch(request.headers.get("origin", ""))
    asked = request.headers.get("host", "")
    if sent is None or _place(sent["place"], sent["scheme"]) != _place(asked, sent["scheme"]):
        raise HTTPException(
            403, "This form was sent by another site, or by a browser that does not say; nothing was done."
        )


def _place(netloc: str, scheme: str) -> tuple[str, int]:
    """Split host and port; behind a proxy the Host may leave out the port that the scheme has anyway."""
    name = host_of(netloc)
    port = netloc[len(name) :].removeprefix(":")
    return name, int(port) if port else _DEFAULT_PORTS[scheme]


def _refuse_after(wait_s: int | None) -> None:
    if wait_s is not None:
        raise HTTPException(
            429, f"Too many requests; the next may come in {wait_s} s.", headers={"Retry-After": str(wait_s)}
        )
