"""What pages are made of beside their templates: style, and what draws their figures."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def asset(name: str) -> str:
    """Give a file of this package, such as `report.css` or `figures.js`."""
    return (files("autotune.tracking.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def drawing_library() -> str:
    """Give plotly's own script, which figures.js draws with."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
