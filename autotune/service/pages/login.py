"""Logging in with a token, and out again."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from autotune.service.pages.rendering import page
from autotune.service.pages.visitors import LoginNeededError, check_guesses, check_origin, visitor_of
from autotune.service.state import service_of
from autotune.service.tokens import digest_of

_HOME = "/"
_UNKNOWN = "This token opens nothing: it is unknown, expired or revoked."


async def show_login(request: Request) -> Response:
    """Show the form, unless somebody has logged in, or followed the link that the process printed when it began."""
    service, given = service_of(request), request.query_params.get("token")
    if given is None:
        next_ = _local(request.query_params.get("next", ""))
        try:
            await visitor_of(service, request)
        except LoginNeededError:
            return _form(request, next_=next_)
        return RedirectResponse(next_, 303, headers={"Cache-Control": "no-store"})
    digest = digest_of(given.strip())
    if not service.is_own(digest):  # tokens of the registry are no part of an address
        check_guesses(request)
        return _form(request, told="This link is of a service that has ended. Log in with a token.", status=401)
    return _entered(request, digest, _HOME)


async def log_in(request: Request) -> Response:
    """Let in whoever has a token that opens."""
    check_origin(request)
    form = await request.form(max_files=0, max_fields=4)
    next_ = _local(str(form.get("next", "")))
    digest = digest_of(str(form.get("token", "")).strip())
    if await service_of(request).holder(digest) is None:
        check_guesses(request)
        return _form(request, next_=next_, told=_UNKNOWN, status=401)
    return _entered(request, digest, next_)


async def log_out(request: Request) -> Response:
    """Have the browser forget who was here."""
    check_origin(request)
    response = RedirectResponse("/login", 303)
    service_of(request).sessions.end(response)
    return response


def _entered(request: Request, digest: str, next_: str) -> Response:
    response = RedirectResponse(next_, 303, headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
    service_of(request).sessions.begin(response, digest)
    return response


def _form(request: Request, *, next_: str = _HOME, told: str = "", status: int = 200) -> Response:
    return page(request, "login", title="Log in", visitor=None, status=status, next=next_, told=told)


def _local(address: str) -> str:
    """Give an address of this site; anything else leads home."""
    plain = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if plain else _HOME
