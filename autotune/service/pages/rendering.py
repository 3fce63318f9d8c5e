"""From what is known to a page: templates, words for values, and the headers that every page bears."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from autotune.service.limits import host_of
from autotune.service.pages.assets import address_of
from autotune.service.state import Service, service_of
from autotune.spec import AccessToken, Decision, Interval
from autotune.tracking.report.rendering import page_environment
from autotune.tracking.report.verdict import MOODS
from autotune.units import format_rate

KEY_SHOWN = 8
"""Digits of a key that people see, as on the command line."""

_PLAIN = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_DRAWN = (  # plotly sets styles of what it draws
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "Cache-Control": "private, no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer browsers do not say where a form came from
    "Cross-Origin-Opener-Policy": "same-origin",
}
_PARTS = (
    ("studies", "/", "Studies"),
    ("waiting", "/waiting", "Waiting"),
    ("history", "/history", "History"),
    ("nights", "/nights", "Nights"),
    ("queue", "/queue", "Queue"),
)
"""Parts of the site: name, address, and what the navigation calls them."""


def page(
    request: Request,
    template: str,
    *,
    title: str,
    visitor: AccessToken | None,
    part: str = "",
    status: int = 200,
    draws: bool = False,
    headers: Mapping[str, str] | None = None,
    **shown: Any,
) -> HTMLResponse:
    """Render a page.

    Args:
        request: What it answers.
        template: Name of the template, without its ending.
        title: Its title.
        visitor: Who looks at it; None is somebody who has not logged in.
        part: Part of the site that it belongs to.
        status: Status of HTTP.
        draws: Whether it has figures, which need scripts.
        headers: Further headers.
        shown: What the template shows.
    """
    service = service_of(request)
    text = (
        _environment()
        .get_template(f"{template}.page.jinja")
        .render(
            title=title,
            visitor=visitor,
            part=part,
            parts=_PARTS,
            draws=draws,
            outside=_outside(service, request),
            **shown,
        )
    )
    policy = {"Content-Security-Policy": _DRAWN if draws else _PLAIN}
    return HTMLResponse(text, status, headers={**_HEADERS, **policy, **(headers or {})})


def _outside(service: Service, request: Request) -> dict[str, str]:
    """Give the addresses of what else shows studies, by name."""
    found = {}
    if service.dashboard is not None:
        found["Optuna"] = dashboard_address(service, request)
    if service.settings.mlflow_url:
        found["MLflow"] = service.settings.mlflow_url
    return found


def dashboard_address(service: Service, request: Request) -> str:
    """Give the address of optuna-dashboard: the same host on its own port, which the cookie of the login reaches."""
    scheme = "https" if service.settings.is_secure else "http"
    return f"{scheme}://{host_of(request.headers['host'])}:{service.dashboard.port if service.dashboard else 0}"


@cache
def _environment() -> Environment:
    environment = page_environment(PackageLoader("autotune.service.pages", "templates"))
    environment.filters |= {
        "when": _when,
        "ratio": _ratio,
        "gain": _gain,
        "words": lambda text: text.replace("_", " "),
        "short": lambda key: key[:KEY_SHOWN],
    }
    environment.globals |= {"moods": MOODS, "asset": address_of}
    return environment


def _when(at: datetime | None) -> Markup:
    if at is None:
        return Markup("–")
    return Markup('<time datetime="{}">{} UTC</time>').format(at.isoformat(), f"{at:%Y-%m-%d %H:%M}")


def _ratio(ratio: Interval | None) -> str:
    return "–" if ratio is None else f"{ratio.mean:.2f} × ({ratio.low:.2f} to {ratio.high:.2f})"


def _gain(decision: Decision) -> str:
    """Say on one line what a decision claims."""
    if decision.config == decision.default:
        return "The PyTorch default itself"
    rate = "" if decision.samples_per_s is None else f", {format_rate(decision.samples_per_s)}"
    if decision.ratio is None:
        return f"No ratio to the PyTorch default{rate}"
    ratio = decision.ratio
    return f"{ratio.mean:.2f} × the PyTorch default (95 % interval {ratio.low:.2f} to {ratio.high:.2f}){rate}"
