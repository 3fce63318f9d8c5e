"""`autotune token`: tokens that open the service, made, listed and revoked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, get_args

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from autotune.cli.output import error_console, print_json
from autotune.compose import places
from autotune.errors import SpecError
from autotune.registry import open_registry
from autotune.service.tokens import digest_of, new_token
from autotune.spec import AccessToken, Scope
from autotune.spec.base import first_message
from autotune.units import parse_seconds

app = typer.Typer(
    help="Makes, lists and revokes tokens that open the service.",
    epilog="Example: autotune token create training --scope read",
    no_args_is_help=True,
)

_HOME = typer.Option(help="Folder of results.")
_JSON = typer.Option("--json", help="Print one JSON document on standard output.")
_NEVER = "never"
_LONGEST = timedelta(days=3650)


@app.command("create", epilog="Example: autotune token create nightly --scope read --scope tune --expires 90d")
def create_command(
    name: Annotated[str, typer.Argument(help="Who or what will use it: letters, digits, dots, dashes, @ and _.")],
    scope: Annotated[list[str] | None, typer.Option(help="What it may do: read, tune or review; read alone.")] = None,
    expires: Annotated[str, typer.Option(help="How long it opens anything, such as 90d, or never.")] = "365d",
    home: Annotated[Path | None, _HOME] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Make a token and print it; it is shown this once, and kept as SHA-256 alone."""
    made = _made(name, tuple(dict.fromkeys(scope or ["read"])), expires)
    text, at = new_token(), places(home)
    with open_registry(at.home, at.registry_url) as registry:
        registry.add_token(digest_of(text), made)
    if as_json:
        print_json({"token": text, **made.model_dump(mode="json")})
        return
    until = "never expires" if made.expires_at is None else f"expires {made.expires_at:%Y-%m-%d}"
    told = f"{name} may {', '.join(made.scopes)}, {until}; it is not shown again"
    error_console().print(told, markup=False, highlight=False, soft_wrap=True)
    print(text)


@app.command("list", epilog="Example: autotune token list --json")
def list_command(home: Annotated[Path | None, _HOME] = None, as_json: Annotated[bool, _JSON] = False) -> None:
    """Show all tokens by name: what they may do, and until when."""
    at, now = places(home), datetime.now(UTC)
    with open_registry(at.home, at.registry_url) as registry:
        found = registry.tokens()
    if as_json:
        print_json({"tokens": [{**one.model_dump(mode="json"), "state": _state(one, now)} for one in found]})
        return
    table = Table("name", "may", "made", "expires", "state")
    for one in found:
        until = "never" if one.expires_at is None else f"{one.expires_at:%Y-%m-%d}"
        table.add_row(one.name, ", ".join(one.scopes), f"{one.created_at:%Y-%m-%d}", until, _state(one, now))
    Console(soft_wrap=True, highlight=False).print(table if found else "there are no tokens yet")


@app.command("revoke", epilog="Example: autotune token revoke training")
def revoke_command(
    name: Annotated[str, typer.Argument(help="Name of the token.")],
    home: Annotated[Path | None, _HOME] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Let a token open nothing any more; a service that runs notices within a second."""
    at = places(home)
    with open_registry(at.home, at.registry_url) as registry:
        registry.revoke_token(name, at=datetime.now(UTC))
    if as_json:
        print_json({"revoked": name})
    else:
        print(f"{name} opens nothing any more")


def _made(name: str, scopes: tuple[str, ...], expires: str) -> AccessToken:
    unknown = [each for each in scopes if each not in get_args(Scope)]
    if unknown:
        raise SpecError(f"a scope is one of {', '.join(get_args(Scope))}, got {', '.join(unknown)}")
    now = datetime.now(UTC)
    try:
        return AccessToken.model_validate(
            {"name": name, "scopes": scopes, "created_at": now, "expires_at": _expiry(expires, now)}
        )
    except ValidationError as error:
        raise SpecError(f"a token's {first_message(error)}") from error


def _expiry(expires: str, now: datetime) -> datetime | None:
    if expires == _NEVER:
        return None
    seconds = parse_seconds(expires)
    if seconds > _LONGEST.total_seconds():
        raise SpecError(f"a token expires within {_LONGEST.days}d or never, got {expires!r}")
    return now + timedelta(seconds=seconds)


def _state(token: AccessToken, now: datetime) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and now >= token.expires_at else "open"
