"""Endpoints of pages: who may see them, and what people read where something is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from autotune.errors import ConflictError, RegistryError, SpecError
from autotune.service.authentication import GUARDED
from autotune.service.pages.rendering import page
from autotune.service.pages.visitors import LoginNeededError, check_origin, check_rates, check_scope, visitor_of
from autotune.service.problems import RETRY_S, refused
from autotune.service.state import service_of
from autotune.spec import AccessToken, Scope

Endpoint = Callable[[Request], Awaitable[Response]]
Page = Callable[[Request, AccessToken], Awaitable[Response]]
"""Answers a request of somebody who has logged in."""

_AWAY = "The registry does not answer at the moment. Look whether what you sent was done before you send it again."
_TITLES = {403: "Not allowed", 404: "Not found", 405: "Not possible here", 409: "Somebody else decided first"}


def anybody(endpoint: Endpoint) -> Endpoint:
    """Give an endpoint whose refusals are pages."""

    async def answered(request: Request) -> Response:
        return await _answer(request, endpoint(request), None)

    return answered


def readers(endpoint: Page) -> Endpoint:
    """Give an endpoint for whoever has logged in and may read."""

    async def answered(request: Request) -> Response:
        return await _admit(request, endpoint, scope="read")

    return answered


def deciders(endpoint: Page, scope: Scope = "review") -> Endpoint:
    """Give an endpoint that changes something: for forms of our own pages, from those who may."""

    async def answered(request: Request) -> Response:
        return await _admit(request, endpoint, scope=scope)

    return answered


async def _admit(request: Request, endpoint: Page, *, scope: Scope) -> Response:
    service = service_of(request)
    try:
        visitor = await visitor_of(service, request)
    except LoginNeededError:
        return _to_login(request)
    except RegistryError:
        return problem(request, None, status=503, told=_AWAY)

    async def admitted() -> Response:
        changes = request.method == "POST"
        if changes:
            check_origin(request)
        check_rates(service, visitor, changes=changes)
        check_scope(visitor, scope)
        return await endpoint(request, visitor)

    return await _answer(request, admitted(), visitor)


async def _answer(request: Request, answer: Awaitable[Response], visitor: AccessToken | None) -> Response:
    try:
        return await answer
    except ConflictError as error:
        return problem(request, visitor, status=409, told=sentence(str(error)))
    except SpecError as error:
        return problem(request, visitor, status=422, told=sentence(str(error)))
    except RegistryError:
        return problem(request, visitor, status=503, told=_AWAY)
    except HTTPException as error:
        return problem(request, visitor, status=error.status_code, told=error.detail, headers=error.headers)


def problem(
    request: Request,
    visitor: AccessToken | None,
    *,
    status: int,
    told: str,
    kept: str = "",
    back: str = "",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Give the page that says why something was refused.

    Args:
        request: What was refused.
        visitor: Who asked.
        status: Status of HTTP.
        told: Why.
        kept: What somebody has typed, so that it is not lost.
        back: Where it can be looked at again.
        headers: Further headers.
    """
    further = {"Retry-After": str(RETRY_S)} if status == 503 else headers
    return page(
        request, "problem", title=_TITLES.get(status, "This did not work"), visitor=visitor, status=status,
        headers=further, told=told, kept=kept, back=back,
    )  # fmt: skip


async def nowhere(request: Request, error: Exception) -> Response:
    """Say that there is nothing: as a page, apart from what programs ask for."""
    told = error.detail if isinstance(error, HTTPException) else "Not Found"
    if f"{request.url.path}/".startswith(GUARDED):
        return refused(404, told)
    return problem(request, None, status=404, told="There is no page at this address.")


def _to_login(request: Request) -> Response:
    """Send somebody to the login, and back afterwards."""
    if request.method not in ("GET", "HEAD"):
        told = "You are not logged in any more. Log in in another tab, then go back and send this again."
        return problem(request, None, status=401, told=told)
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    login = f"/login?next={quote(here, safe='')}"
    if request.headers.get("sec-fetch-site") == "cross-site":
        # browsers keep the cookie to themselves when a link on another site leads here, through redirects too; from a
        # page of our own they send it, and the login passes on whoever has logged in
        return page(request, "passing", title="One moment", visitor=None, there=login)
    return RedirectResponse(login, 303, headers={"Cache-Control": "no-store"})


def sentence(text: str) -> str:
    """Begin a message with a capital and end it with a full stop, as it stands alone on a page."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
