"""Plots of short studies, saved as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import SpecError
from autotune.spec import Interval, LoaderConfig

if TYPE_CHECKING:
    from autotune.loaders.optimization_table import TableRow

_CHOSEN, _OTHER = "#1b7837", "#5a7fa6"
_ROWS_MAX = 15
"""Configurations that a plot of all dimensions shows; the slowest are left out, and said."""


def check_plot(path: Path) -> Any:
    """Look whether a plot can be drawn; give matplotlib's `Figure`, which needs no display and keeps no state.

    Raises:
        SpecError: The file has another ending than `.png`.
    """
    if path.suffix.lower() != ".png":
        raise SpecError(f"a plot is a PNG file, got {str(path)!r}; let its name end in .png, as {path.stem}.png")
    from matplotlib.figure import Figure

    return Figure


def save_plot(table: Sequence[TableRow], chosen: LoaderConfig, *, dimension: str, path: Path) -> Path:
    """Draw rates with their intervals: over the one dimension that varies, else a bar for each configuration.

    Args:
        table: What was measured.
        chosen: The configuration that stands out.
        dimension: `batch_size`, `num_workers` or `all`.
        path: The PNG file; its folder is made.

    Raises:
        SpecError: Nothing was measured, or the file has another ending.
    """
    figure_class = check_plot(path)
    measured = [(row, row.samples_per_s) for row in table if row.samples_per_s is not None]
    if not measured:
        raise SpecError("a plot needs at least one measured configuration, got none; look at the failures in the table")
    bars = min(len(measured), _ROWS_MAX)
    figure = figure_class(figsize=(8, 4.5 if dimension != "all" else 1.8 + 0.34 * bars), layout="constrained")
    axes = figure.add_subplot()
    if dimension == "all":
        _draw_bars(axes, measured, chosen)
    else:
        _draw_points(axes, measured, chosen, dimension)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _draw_points(
    axes: Any, measured: Sequence[tuple[TableRow, Interval]], chosen: LoaderConfig, dimension: str
) -> None:
    """Draw the rate over the values of one dimension, evenly spaced."""
    values = sorted({getattr(row.configuration, dimension) for row, _ in measured})
    for row, rate in measured:
        is_chosen = row.configuration == chosen
        axes.errorbar(
            values.index(getattr(row.configuration, dimension)),
            rate.mean,
            yerr=[[max(0.0, rate.mean - rate.low)], [max(0.0, rate.high - rate.mean)]],
            fmt="D" if is_chosen else "o",
            color=_CHOSEN if is_chosen else _OTHER,
            markerfacecolor=None if _alike_but_for(dimension, row.configuration, chosen) else "white",
            capsize=4,
            label="chosen" if is_chosen else None,
        )
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_ylim(0, 1.08 * _top(measured))
    axes.set_xlabel({"batch_size": "batch size", "num_workers": "workers"}[dimension])
    axes.set_ylabel("samples/s")
    axes.set_title(f"{len(measured)} configurations, with 95 % intervals (hollow: with other settings)", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    if any(row.configuration == chosen for row, _ in measured):
        axes.legend()


def _alike_but_for(dimension: str, one: LoaderConfig, other: LoaderConfig) -> bool:
    """Tell whether two configurations differ in one dimension at most; what only workers have goes with it."""
    left_out = {dimension, "prefetch_factor", "persistent_workers"}
    return one.model_dump(exclude=left_out) == other.model_dump(exclude=left_out)


def _draw_bars(axes: Any, measured: Sequence[tuple[TableRow, Interval]], chosen: LoaderConfig) -> None:
    """Draw a bar for each configuration, the fastest on top."""
    shown = list(reversed(measured[:_ROWS_MAX]))
    rates = [rate.mean for _, rate in shown]
    errors = [
        [max(0.0, rate.mean - rate.low) for _, rate in shown],
        [max(0.0, rate.high - rate.mean) for _, rate in shown],
    ]
    colours = [_CHOSEN if row.configuration == chosen else _OTHER for row, _ in shown]
    axes.barh(range(len(shown)), rates, xerr=errors, color=colours, capsize=3, ecolor="#333333")
    axes.set_yticks(range(len(shown)), [row.label for row, _ in shown], fontsize=8)
    axes.set_xlim(0, 1.08 * _top(shown))
    axes.set_xlabel("samples/s")
    left_out = len(measured) - len(shown)
    rest = f"; {left_out} slower ones are left out" if left_out else ""
    axes.set_title(f"{len(shown)} configurations, with 95 % intervals (green: chosen{rest})", fontsize=10)
    axes.grid(axis="x", alpha=0.3)


def _top(measured: Sequence[tuple[TableRow, Interval]]) -> float:
    """Give the end of the axis: the interval of one window reaches to twice its mean, and would fill the plot."""
    return max(rate.high if rate.high < 2 * rate.mean else rate.mean for _, rate in measured)


__all__ = ["check_plot", "save_plot"]
