"""Table and plot of the transfer benchmark."""

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

Panel = Mapping[str, Sequence[Sequence[float]]]
"""By the name of a way: of each study the true regret of the best so far after each run."""

_RUNS_SHOWN = 40
_LEGEND = """`studies/benchmarks/transfer.py`. A first study leaves its records and its decision; a second one over
another landscape begins with its best few, adapted to the machine, or without them. Runs to 5 %: runs until the best so
far is within 5 % of the optimum of the whole space, by true rates, median and 90th percentile; for good: until it stays
there, which noise decides as well. Order: share of pairs of configurations with the same order in both landscapes.
Unmeasured: what the best configuration there loses here where it is taken without a measurement, which never happens.
Misled: the first study ran over the inverted landscape, in which the fastest configuration is the slowest."""
_COLUMNS = (
    "case",
    "noise",
    "studies",
    "runs to 5 % alone (p90)",
    "with priors (p90)",
    "for good alone (p90)",
    "with priors (p90)",
    "regret p95 alone",
    "with priors",
    "runs alone",
    "with priors",
)


def write(document: Mapping[str, Any], panels: Mapping[str, Panel], folder: Path) -> None:
    """Write JSON, Markdown and plot under today's date.

    Args:
        document: What the benchmark prints.
        panels: What is drawn of each case.
        folder: Folder of the records.
    """
    stem = f"{datetime.now(UTC):%Y-%m-%d}-transfer"
    (folder / f"{stem}.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / f"{stem}.md").write_text(table(document, picture=f"{stem}.png"))
    draw(panels, folder / f"{stem}.png")


def table(document: Mapping[str, Any], *, picture: str) -> str:
    """Lay the figures out in Markdown."""
    about = document["circumstances"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"# Priors from similar studies, {about['measured_at'][:10]}",
        "",
        *(f"- {name}: {text}" for name, text in about["landscapes"].items()),
        "",
        f"Replayed on {about['machine']}; {versions}.",
        "",
        _LEGEND,
        "",
        f"![regret over runs]({picture})",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{' --- |' * len(_COLUMNS)}",
    ]
    for title, case in document["cases"].items():
        lines += [_line(title, noise, ways) for noise, ways in case["noise"].items()]
    lines += ["", "## How far to trust them", "", "| case | similarity | order | unmeasured |", f"|{' --- |' * 4}"]
    for title, case in document["cases"].items():
        lines.append(
            f"| {title} | {case['why']} | {_share(case['order_agreement'])} | {_share(case['loss_unmeasured'])} |"
        )
    lines += ["", "What a study says, for example:", ""]
    lines += [f"- {case['said']}" for case in document["cases"].values() if case["said"]]
    return "\n".join(lines) + "\n"


def _line(title: str, noise: str, ways: Mapping[str, Any]) -> str:
    both = (ways["alone"], ways["with priors"])
    cells = [title, noise, str(both[0]["studies"])]
    for name in ("reached", "stayed"):
        cells += [f"{_count(one[f'{name}_median'])} ({_count(one[f'{name}_p90'])})" for one in both]
    cells += [f"{one['regret_p95']:.2%}" for one in both]
    cells += [f"{one['processes_median']:.0f}" for one in both]
    return f"| {' | '.join(cells)} |"


def _count(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "not possible here" if value is None else f"{value:.0%}"


def draw(panels: Mapping[str, Panel], path: Path) -> None:
    """Draw the mean regret of the best so far over the first runs, one panel for each case."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.6), squeeze=False, sharey=True)
    for axis, (title, ways) in zip(axes[0], panels.items(), strict=True):
        for name, studies in ways.items():
            rows = [_padded(regrets) for regrets in studies]
            axis.step(range(1, _RUNS_SHOWN + 1), 100 * np.mean(rows, axis=0), where="post", label=name)
        axis.axhline(5, color="grey", linewidth=0.8, linestyle=":")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("runs")
        axis.set_ylim(0, 60)
        axis.grid(visible=True, alpha=0.3)
    axes[0][0].set_ylabel("true regret of the best so far, %, mean")
    axes[0][-1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _padded(regrets: Sequence[float]) -> list[float]:
    """Give the first runs; a study that ended before stays where it was."""
    shown = list(regrets[:_RUNS_SHOWN])
    return shown + [shown[-1]] * (_RUNS_SHOWN - len(shown))
