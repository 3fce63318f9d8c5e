"""`autotune serve`: the service of a team."""

from __future__ import annotations

import importlib.util
import ipaddress
import re
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, get_args
from urllib.parse import urlsplit

import typer

from autotune.cli.output import error_console
from autotune.cli.person import login_name
from autotune.compose import Places, places, prepared_optuna_url
from autotune.errors import MissingExtraError, SpecError
from autotune.registry import AUTOMATIC_ACTOR, open_registry
from autotune.service.settings import DEFAULT_CHANGES, DEFAULT_PORT, DEFAULT_RATE, LOOPBACK_HOSTS, Settings
from autotune.spec import AccessToken, Scope

NEEDS_ARGUMENTS = False
EXAMPLES = "Example: autotune serve --studies studies --host 0.0.0.0 --allow-host tuner"

_WAIT_S = 2.0
"""A request does not wait longer for a locked registry or a server that is away: its client has its own way out."""
_PACKAGES = (
    "fastapi", "uvicorn", "httptools", "limits", "prometheus_client", "a2wsgi", "itsdangerous", "python_multipart",
)  # fmt: skip


def command(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all of this machine.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port, optuna-dashboard on the next one; 0 takes free ones.", min=0, max=65534)
    ] = DEFAULT_PORT,
    mlflow: Annotated[
        str | None, typer.Option(help="Address under which people reach MLflow, where it is not the tracking URI.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Names that clients use, with commas between, besides those of loopback.")
    ] = None,
    studies: Annotated[
        Path | None, typer.Option(help="Folder of study files that may be queued over HTTP; without it none may.")
    ] = None,
    rate: Annotated[str, typer.Option(help="Most requests of one token, as 120000/minute.")] = DEFAULT_RATE,
    changes: Annotated[str, typer.Option(help="Most changes that one token may ask for.")] = DEFAULT_CHANGES,
    home: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
) -> None:
    """Serve configurations, studies and decisions over HTTP until interrupted; `autotune token` lets clients in."""
    _check_packages()
    from autotune.service.app import create_app
    from autotune.service.dashboard import Dashboard
    from autotune.service.dashboard_guard import guarded_dashboard
    from autotune.service.serving import Listener, listen, serve
    from autotune.study.dashboard import OptunaDashboard

    at = places(home)
    settings = _settings(host, allow_host or (), studies, rates=(rate, changes), at=at, mlflow=mlflow)
    with ExitStack() as held:
        listening = [held.enter_context(listen(host, each)) for each in (port, port and port + 1)]
        main, beside = (int(one.getsockname()[1]) for one in listening)
        registry = held.enter_context(open_registry(at.home, at.registry_url, wait_s=_WAIT_S))
        dashboard = Dashboard(optuna=OptunaDashboard(prepared_optuna_url(at)), port=beside)
        app = create_app(registry, settings, dashboard)
        service = app.state.service
        applications = [app, guarded_dashboard(dashboard, service, login_port=main)]
        own = service.admit(_own_token()) if _is_own(host, at.service_url) else None
        _tell(host, main, beside, own=own)
        serve([Listener(app=each, listening=one) for each, one in zip(applications, listening, strict=True)])


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"autotune serve needs {', '.join(missing)}; install them with: pip install 'dataloader-autotune[service]'"
        )


def _settings(
    host: str,
    allow_host: Sequence[str],
    studies: Path | None,
    *,
    rates: tuple[str, str],
    at: Places,
    mlflow: str | None,
) -> Settings:
    from autotune.service.limits import host_of
    from autotune.service.sessions import signing_key

    if studies is not None and not studies.is_dir():
        raise SpecError(f"--studies must be a folder of study files, got {studies}")
    names = [host_of(name) for words in allow_host for name in words.split(",") if name.strip()]
    if at.service_url is not None:
        names.append(host_of(urlsplit(at.service_url).netloc))
    named = f"[{host}]" if ":" in host else host
    return Settings(
        allowed_hosts=tuple(dict.fromkeys([*LOOPBACK_HOSTS, named, *names])),
        studies=studies,
        rate=rates[0],
        changes=rates[1],
        service_url=at.service_url,
        mlflow_url=_mlflow_url(mlflow, at.tracking_uri),
        signing_key=signing_key(at.home),
    )


def _mlflow_url(given: str | None, tracking_uri: str) -> str | None:
    """Give the address of MLflow's pages; a tracking URI may also be a database, which has none."""
    address = (tracking_uri if given is None else given).rstrip("/")
    if urlsplit(address).scheme in ("http", "https"):
        return address
    if given is not None:
        raise SpecError(f"--mlflow is an address such as http://localhost:5000, got {given!r}")
    return None


def _own_token() -> AccessToken:
    """Give the token of whoever started the service: it opens everything, and ends with the process."""
    name = re.sub(r"[^A-Za-z0-9._@-]", "-", login_name() or "").lstrip("._@-")
    own = name if name not in ("", AUTOMATIC_ACTOR) else "owner"  # as which nobody decides
    return AccessToken(name=own, scopes=get_args(Scope), created_at=datetime.now(UTC))


def _tell(host: str, port: int, dashboard_port: int, *, own: str | None) -> None:
    console = error_console()
    shown = f"[{host}]" if ":" in host else host
    lines = [
        f"autotune serves http://{shown}:{port}/ (Ctrl+C ends it)",
        f"optuna-dashboard is at http://{shown}:{dashboard_port}/ behind the same login",
    ]
    if own is not None:
        lines.append(f"to look and decide, open http://{shown}:{port}/login?token={own}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    if not _is_loopback(host):
        console.print(
            "other machines can reach this, and tokens travel in clear: put a proxy with TLS before it, "
            "and name each name that clients use with --allow-host",
            style="yellow",
            soft_wrap=True,
        )


def _is_own(host: str, service_url: str | None) -> bool:
    """Whether this machine alone reaches the service: a link that opens everything belongs in no log of a server."""
    reached = host if service_url is None else urlsplit(service_url).hostname or ""
    return _is_loopback(host) and _is_loopback(reached)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
