"""Table and plot of the search benchmark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

_SHOWN_PERCENT = (0.1, 60)
_LEGEND = """`studies/benchmarks/search.py`. Regret: what the handed-out configuration loses against the best of the
whole space, by true rates. Bias: published ratio (ours), or highest single run (rivals), over the truth. Runs to 5 %:
runs until the best so far stays within 5 % of the optimum, median. Score: share of the way from random search's curve
to the optimum over time."""
_COLUMNS = (
    "noise",
    "studies",
    "regret median",
    "p95",
    "bias",
    "processes (median, most)",
    "runs to 5 %",
    "runs to 2 %",
    "s to 5 %",
    "s to 2 %",
    "score",
)


def write(document: Mapping[str, Any], results: Sequence[Any], folder: Path) -> None:
    """Write JSON, Markdown and plot under today's date.

    Args:
        document: What the benchmark prints.
        results: Every replayed study, with its curve.
        folder: Folder of the records.
    """
    stem = f"{datetime.now(UTC):%Y-%m-%d}-search"
    (folder / f"{stem}.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / f"{stem}.md").write_text(table(document, picture=f"{stem}.png"))
    draw(results, folder / f"{stem}.png")


def table(document: Mapping[str, Any], *, picture: str) -> str:
    """Lay the figures out in Markdown."""
    about = document["circumstances"]
    landscapes = "; ".join(f"{letter}: {name}" for letter, name in about["landscapes"].items())
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"# Search on recorded landscapes, {about['measured_at'][:10]}",
        "",
        f"Landscapes: {landscapes}. Replayed on {about['machine']}; {versions}.",
        "",
        _LEGEND,
        "",
        f"![regret over seconds]({picture})",
        "",
        *_head("method"),
    ]
    for method, by_noise in _methods(document):
        lines += [_line(method, noise, one, score=f"{one['score']:.2f}") for noise, one in by_noise.items()]
    lines += ["", "## By landscape", "", *_head("method, landscape")]
    for method, by_noise in _methods(document):
        for noise, one in by_noise.items():
            parts = one["landscapes"].items()
            lines += [_line(f"{method}, {letter}", noise, of_one, score="") for letter, of_one in parts]
    return "\n".join(lines) + "\n"


def _head(first: str) -> list[str]:
    return ["| " + " | ".join([first, *_COLUMNS]) + " |", "| " + " | ".join(["---"] * (1 + len(_COLUMNS))) + " |"]


def _methods(document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(method, found) for method, found in document.items() if method != "circumstances"]


def _line(name: str, noise: str, one: Mapping[str, Any], *, score: str) -> str:
    bias = "–" if one["bias_mean"] is None else f"{one['bias_mean']:+.2%}"
    places = [_count(one[key]) for key in ("runs_to_5%", "runs_to_2%", "seconds_to_5%", "seconds_to_2%")]
    processes = f"{one['processes_median']:.0f}, {one['processes_max']}"
    cells = [name, noise, one["studies"], f"{one['regret_median']:.2%}", f"{one['regret_p95']:.2%}", bias, processes]
    return "| " + " | ".join(map(str, [*cells, *places, score])) + " |"


def _count(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f}"


def draw(results: Sequence[Any], path: Path) -> None:
    """Draw the mean regret over seconds, one panel for each landscape."""
    letters = list(dict.fromkeys(one.task.landscape for one in results))
    noise = sorted({one.task.noise for one in results})[len({one.task.noise for one in results}) // 2]
    figure, axes = plt.subplots(1, len(letters), figsize=(5 * len(letters), 4), squeeze=False, sharey=True)
    for axis, letter in zip(axes[0], letters, strict=True):
        chosen = [one for one in results if one.task.landscape == letter and one.task.noise == noise]
        for method in dict.fromkeys(one.task.method for one in chosen):
            curves = [one.curve for one in chosen if one.task.method == method]
            times, middle, low, high = _over_time(curves)
            (line,) = axis.plot(times, middle, label=method)
            axis.fill_between(times, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        axis.set_title(f"landscape {letter}, run-to-run noise {noise:.0%}")
        axis.set_xlabel("seconds of tuning")
        axis.set_yscale("log")
        axis.set_ylim(*_SHOWN_PERCENT)
        axis.grid(visible=True, alpha=0.3)
    axes[0][0].set_ylabel("true regret, % (mean; band: 10 to 90 %)")
    axes[0][-1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _over_time(curves: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
    times = np.linspace(max(curve.seconds[0] for curve in curves), max(curve.seconds[-1] for curve in curves), 300)
    rows = []
    for curve in curves:
        places = np.maximum(np.searchsorted(curve.seconds, times, side="right") - 1, 0)
        rows.append(100 * np.maximum(np.array(curve.regrets)[places], _SHOWN_PERCENT[0] / 100))
    return times, np.mean(rows, axis=0), np.percentile(rows, 10, axis=0), np.percentile(rows, 90, axis=0)
