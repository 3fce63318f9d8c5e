"""What all figures share: colours, which records are drawn, and the words beside a point."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from autotune.spec import Measurement, TrialRecord

MEASURED, STOPPED, REFUSED, FAILED = "#2a6fb0", "#9ab7d3", "#d1495b", "#8d6a9f"
RATE = "samples/s"
HEIGHT = 420
"""Pixels of a figure."""


def in_order(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Sort records as they were started."""
    return sorted(records, key=lambda record: (record.started_at, record.key))


def measured_rows(records: Sequence[TrialRecord]) -> list[tuple[TrialRecord, Measurement]]:
    """Give the records that were measured, each with its measurement, as they were started."""
    return [(record, record.measurement) for record in in_order(records) if record.measurement is not None]


def number_of(record: TrialRecord) -> str:
    """Name a record as shortly as it can be found again."""
    return record.key[:6] if record.number is None else str(record.number)


def hover(record: TrialRecord) -> str:
    """Write what a point is; plotly renders markup, which messages must not be."""
    failure = "" if record.failure is None else f"<br>{record.failure.kind}: {escape(record.failure.message[:200])}"
    return f"{record.phase} {number_of(record)}: {escape(record.config.label())}{failure}"


def styled(figure: Any, title: str, *, y: str, x: str | None = None, height: int = HEIGHT) -> Any:
    """Give a figure its title, the names of its axes and the looks of all others."""
    figure.update_layout(
        title={"text": title, "x": 0, "xanchor": "left", "font": {"size": 16}},
        template="plotly_white",
        height=height,
        margin={"t": 90, "r": 20, "b": 55, "l": 65},
        # above the axes, where it takes no width on a phone
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
    )
    if x is not None:
        figure.update_xaxes(title_text=x)
    figure.layout.yaxis.title.text = y
    return figure
