"""The comparison tables as pictures (PNG)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from autotune.loaders.comparisons import ComparedRow, Comparison
from autotune.units import MIB

_DOTS_PER_INCH = 150
_BAR, _OURS, _PARTS = "#4c78a8", "#f58518", ("#b8b8b8", "#9d7660", "#72b7b2", "#4c78a8")
_SAME = 0.45
"""Opacity of bars that show another row's runs."""


class _Panel(NamedTuple):
    """One set of bars beside the names of the rows."""

    title: str
    value: Callable[[ComparedRow], float | None]
    text: Callable[[float], str]


def save_plot(comparison: Comparison, path: Path) -> None:
    """Draw a comparison as horizontal bars, a panel for each figure, and save it as PNG.

    Args:
        comparison: What was measured.
        path: The file; an existing one is replaced.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _CONFIG_PANELS if comparison.kind == "configs" else _MODE_PANELS
    figure = Figure(figsize=(4.2 * len(panels) + 1.2, 1.6 + 0.5 * len(comparison.rows)), layout="constrained")
    FigureCanvasAgg(figure)
    every_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(every_axes, panels, strict=True):
        _draw(axes, panel, comparison.rows)
    if comparison.kind == "modes":
        _stack_start_up(every_axes[0], comparison.rows)
    figure.suptitle(
        f"{comparison.study}, batch size {comparison.batch_size}, {comparison.blocks} runs of each\n"
        f"{comparison.machine.machine_class}",
        fontsize=10,
    )
    figure.savefig(path, format="png", dpi=_DOTS_PER_INCH)


def _draw(axes: Any, panel: _Panel, rows: Sequence[ComparedRow]) -> None:
    values = [panel.value(row) for row in rows]
    last = len(rows) - 1
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        if value is None:
            axes.text(0, place, " not measured", va="center", fontsize=8, color="#777777")
            continue
        colour = _OURS if place == last and len(rows) > 4 else _BAR
        axes.barh(place, value, color=colour, alpha=_SAME if row.same_as else 1.0)
        axes.text(value, place, f" {panel.text(value)}", va="center", fontsize=8)
    if panel.title == _RATE:
        _draw_spread(axes, rows)
    ends = [*values, *(row.highest for row in rows if panel.title == _RATE)]
    axes.set_xlim(0, 1.25 * max((end for end in ends if end is not None), default=0.0) or 1.0)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
    if not axes.yaxis_inverted():  # the panels share it
        axes.invert_yaxis()
    axes.set_title(panel.title, fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_spread(axes: Any, rows: Sequence[ComparedRow]) -> None:
    for place, row in enumerate(rows):
        if row.lowest is not None and row.runs > 1:
            axes.plot([row.lowest, row.highest], [place + 0.25, place + 0.25], color="#222222", linewidth=1.5)


def _stack_start_up(axes: Any, rows: Sequence[ComparedRow]) -> None:
    """Show over the bars of the start-up what it goes into."""
    names = ("build_s", "archive_build_s", "cache_fill_s", "first_batch_s")
    for name, colour in zip(names, _PARTS, strict=True):
        label = name.removesuffix("_s").replace("_", " ")
        lefts, widths = [], []
        for row in rows:
            parts = [0.0 if row.start_up is None else float(getattr(row.start_up, each)) for each in names]
            lefts.append(sum(parts[: names.index(name)]))
            widths.append(parts[names.index(name)])
        axes.barh(range(len(rows)), widths, left=lefts, color=colour, label=label)
    axes.legend(fontsize=7, loc="lower right", frameon=False)


def _label(row: ComparedRow) -> str:
    workers = f"{row.config.num_workers} workers" if row.config.num_workers else "no workers"
    return f"{row.name}\n{workers}" + (f", as {row.same_as}" if row.same_as else "")


_RATE = "samples/s (line: slowest to fastest run)"
_RATE_PANEL = _Panel(_RATE, lambda row: row.samples_per_s, lambda value: f"{value:,.0f}")
_CONFIG_PANELS = (
    _RATE_PANEL,
    _Panel(
        "memory, % of what is allowed",
        lambda row: None if row.memory_share is None else 100 * row.memory_share,
        lambda value: f"{value:.1f}",
    ),
)
_MODE_PANELS = (
    _Panel(
        "start-up in seconds",
        lambda row: None if row.start_up is None else row.start_up.total_s,
        lambda value: f"{value:.2f}",
    ),
    _Panel(
        "memory in MiB",
        lambda row: None if row.memory_bytes is None else row.memory_bytes / MIB,
        lambda value: f"{value:,.0f}",
    ),
    _RATE_PANEL,
)
