"""The plot of the rivals benchmark: how many times as fast as each rival's pick, on a log axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.ticker import FuncFormatter

mpl.use("Agg")

import matplotlib.pyplot as plt

_COLOURS = {"faster": "#1f5a8a", "within noise": "#9a9a9a", "slower": "#c0392b", "same pick": "#d8d8d8"}
_ROW_INCHES = 0.32
_PANEL_INCHES = 4.2
_COLUMNS_MAX = 3


@dataclass(frozen=True, kw_only=True)
class Bar:
    """The ratio of autotune's pick over a rival's, with its interval.

    Attributes:
        title: The rival.
        mean: The ratio.
        low: Lower end of its 95 % interval.
        high: Upper end.
        same: Whether both picked the same.
    """

    title: str
    mean: float
    low: float
    high: float
    same: bool

    @property
    def meaning(self) -> str:
        """What the interval says."""
        if self.same:
            return "same pick"
        return "faster" if self.low > 1 else "slower" if self.high < 1 else "within noise"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One task.

    Attributes:
        title: Workload and consumer.
        bars: A bar for each rival.
    """

    title: str
    bars: Sequence[Bar]


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Draw one panel for each task, with a row for each rival."""
    names = list(dict.fromkeys(bar.title for panel in panels for bar in panel.bars))
    if not names:
        return
    columns = min(_COLUMNS_MAX, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.2 + _PANEL_INCHES * columns, 0.9 + rows * (1.1 + _ROW_INCHES * len(names))),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    places = [axis for line in axes for axis in line]
    for axis, panel in zip(places, panels, strict=False):
        _panel(axis, panel, names)
    for axis in places[len(panels) :]:
        axis.set_visible(False)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in _COLOURS.values()]
    figure.legend(handles, list(_COLOURS), loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    figure.suptitle(
        "rate of autotune's pick over the rival's, timed by one neutral clock; lines: 95 % interval", fontsize=10
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _panel(axis: Any, panel: Panel, names: Sequence[str]) -> None:
    for bar in panel.bars:
        axis.barh(
            names.index(bar.title),
            bar.mean - 1,
            left=1,
            height=0.7,
            color=_COLOURS[bar.meaning],
            xerr=[[bar.mean - bar.low], [bar.high - bar.mean]],
            error_kw={"lw": 0.9, "capsize": 2, "ecolor": "#202020"},
        )
        text = "same pick" if bar.same else f"{bar.mean:.2f}"
        axis.annotate(
            text, (max(bar.high, 1.0), names.index(bar.title)), (4, 0), textcoords="offset points", va="center", size=7
        )
    axis.set_xscale("log")
    low = min([0.9, *(bar.low for bar in panel.bars)])
    high = max([1.2, *(bar.high for bar in panel.bars)])
    axis.set_xlim(low / 1.1, high * (high / low) ** 0.2)
    axis.axvline(1.0, color="black", lw=0.8)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if high / low < 10 else ""))
    axis.tick_params(axis="x", which="both", labelsize=7)
    axis.grid(visible=True, axis="x", which="major", lw=0.4, color="#bbbbbb")
    axis.set_axisbelow(True)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_title(panel.title, fontsize=9)
