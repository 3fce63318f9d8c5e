"""The plot of the archives benchmark: how many times as fast as plain files, on a log axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.ticker import FuncFormatter

mpl.use("Agg")

import matplotlib.pyplot as plt

_COLOURS = {0: "#1f5a8a", 2: "#e08a2e"}
_OTHER_COLOURS = ("#5b9a57", "#8d5fa8", "#7f7f7f")
_LABEL_COLOURS = {"ours": "black", "package": "#8a5a00", "limit": "#a01010"}
_ROW_INCHES = 0.3
_GROUP_SHARE = 0.82
"""Part of a row's height that its bars take."""

Bar = tuple[str, str, str, int, Any]
"""Row, family, state of the page cache, workers, and ratio with `median`, `low` and `high`."""


def draw(bars: Sequence[Bar], title: str, path: Path) -> None:
    """Draw one panel for each state of the page cache, a row for each reader and a bar for each worker count."""
    states = [state for state in ("warm", "cold") if any(bar[2] == state for bar in bars)]
    names = list(dict.fromkeys(bar[0] for bar in bars))
    if not states:
        return
    figure, axes = plt.subplots(
        1,
        len(states),
        figsize=(4.2 + 5.0 * len(states), 1.6 + _ROW_INCHES * len(names)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    families = {bar[0]: bar[1] for bar in bars}
    for axis, state in zip(axes[0], states, strict=True):
        _panel(axis, [bar for bar in bars if bar[2] == state], names)
        axis.set_title(f"page cache {state}", fontsize=10)
    first = axes[0][0]
    first.set_yticks(range(len(names)), names, fontsize=8)
    for label, name in zip(first.get_yticklabels(), names, strict=True):
        label.set_color(_LABEL_COLOURS[families[name]])
        label.set_fontweight("bold" if families[name] == "ours" else "normal")
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    figure.suptitle(
        f"{title}\nsamples/s against plain files without workers and the same page cache; "
        "lines: lowest and highest round; bold: ours",
        fontsize=10,
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _panel(axis: Any, bars: Sequence[Bar], names: Sequence[str]) -> None:
    workers = sorted({bar[3] for bar in bars})
    height = _GROUP_SHARE / max(1, len(workers))
    for place, count in enumerate(workers):
        shown = [bar for bar in bars if bar[3] == count]
        rows = [names.index(bar[0]) - _GROUP_SHARE / 2 + height * (place + 0.5) for bar in shown]
        middles = [bar[4].median for bar in shown]
        spread = [[bar[4].median - bar[4].low for bar in shown], [bar[4].high - bar[4].median for bar in shown]]
        axis.barh(
            rows,
            middles,
            height,
            xerr=spread,
            color=_COLOURS.get(count, _OTHER_COLOURS[place % len(_OTHER_COLOURS)]),
            error_kw={"lw": 0.9, "capsize": 1.5, "ecolor": "#202020"},
            label=f"{count} workers",
        )
    axis.set_xscale("log")
    axis.axvline(1.0, color="black", lw=0.8, ls=":")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.grid(visible=True, axis="x", which="major", lw=0.4, color="#bbbbbb")
    axis.set_axisbelow(True)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlabel("times plain files", fontsize=9)
