"""One GET over HTTP that ends within a given time, whatever the other side does."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any

BODY_MAX = 1024 * 1024
"""Bytes of an answer that are read; real ones have some thousand."""
_PIECE = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back.

    Attributes:
        status: HTTP status.
        body: The body, at most `BODY_MAX` bytes of it.
        etag: Entity tag; None without one.
    """

    status: int
    body: bytes
    etag: str | None


class ExchangeError(Exception):
    """There was no reply; the message says why, in a few words."""


def get(url: str, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
    """Send a GET and wait for the reply, no longer than the time given.

    The exchange has a thread of its own: looking a name up cannot be interrupted, and a server that sends a byte a
    second keeps to every time-out of a socket. A thread that nobody waits for any more ends by itself.

    Args:
        url: Where to; redirections are not followed.
        headers: Headers.
        timeout_s: Longest wait in seconds.

    Raises:
        ExchangeError: There was no reply in time.
    """
    deadline = time.monotonic() + timeout_s
    found: list[Reply | str] = []

    def work() -> None:
        try:
            found.append(_exchange(url, headers, deadline))
        except (OSError, HTTPException, ValueError) as error:
            found.append(_told(error, timeout_s))

    thread = threading.Thread(target=work, name="autotune-service", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # no thread can be had
        raise ExchangeError(str(error)) from error
    thread.join(timeout_s)
    if not found:
        raise ExchangeError(f"no answer within {timeout_s:.3g} s")
    if isinstance(found[0], str):
        raise ExchangeError(found[0])
    return found[0]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves redirections to the caller, for whom they are no answer."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _exchange(url: str, headers: Mapping[str, str], deadline: float) -> Reply:
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - the caller checked the scheme
    left_s = max(0.001, deadline - time.monotonic())
    try:
        response = urllib.request.build_opener(_NoRedirect).open(request, timeout=left_s)
    except urllib.error.HTTPError as error:
        with error:
            return Reply(status=error.code, body=error.read(_PIECE), etag=None)
    with response:
        return Reply(status=response.status, body=_body(response, deadline), etag=response.headers.get("ETag"))


def _body(response: HTTPResponse, deadline: float) -> bytes:
    """Read until the end or the deadline; more than the limit is garbage anyway."""
    parts: list[bytes] = []
    size = 0
    while size <= BODY_MAX and time.monotonic() < deadline:
        part = response.read1(_PIECE)
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
    raise OSError(f"no end of the answer within the time, or within {BODY_MAX} bytes")


def _told(error: Exception, timeout_s: float) -> str:
    """Put an error into words that hold nothing of what was sent."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError) or isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:.3g} s"
    if isinstance(error, OSError):
        return str(reason) or type(error).__name__
    return f"what came back is no HTTP ({type(error).__name__})" if isinstance(error, HTTPException) else "not sendable"
