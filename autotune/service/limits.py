"""What a request must pass before anything is read of it: the Host that it names, and how many there were."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from autotune.errors import SpecError
from autotune.service.problems import refused


class KnownHosts:
    """Refuses requests for another Host: a page of another site must not reach a service on loopback by its own name.

    Starlette's middleware does the same with the status 400 and a page redirect; here it is 403 in the service's form.

    Args:
        app: What comes next.
        hosts: Names without ports.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            named = Headers(scope=scope).getlist("host")
            if len(named) != 1 or host_of(named[0]) not in self._hosts:
                response = refused(403, f"this service answers to {', '.join(sorted(self._hosts))} alone")
                return await response(scope, receive, send)
        return await self._app(scope, receive, send)


def host_of(header: str) -> str:
    """Give the name in a Host header in small letters, without the port; brackets of an IPv6 address stay."""
    name, colon, port = header.strip().lower().rpartition(":")
    return name if colon and port.isdecimal() and not port.endswith("]") else header.strip().lower()


def parse_rate(text: str) -> RateLimitItem:
    """Read a rate such as `120000/minute` or `50/second`.

    Raises:
        SpecError: It has another form.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise SpecError(f"a rate is a number and a unit of time such as 120000/minute, got {text!r}") from error


class RateLimits:
    """Counts requests by who sends them, in windows of fixed length."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def wait_s(self, limit: RateLimitItem, *who: str) -> int | None:
        """Count a request; give None where it may pass, else the seconds until the next may."""
        if self._limiter.hit(limit, *who):
            return None
        return self._until_reset(limit, *who)

    def _until_reset(self, limit: RateLimitItem, *who: str) -> int:
        return max(1, math.ceil(self._limiter.get_window_stats(limit, *who).reset_time - time.time()))
