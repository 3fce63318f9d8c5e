"""The records of the growth benchmark: tables, verdicts, and curves over the sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

HEADS = {
    "save": ("Growth of a trial's books", "trials"),
    "resolver": ("Growth of resolving", "records"),
    "index": ("Growth of an archive's index", "members"),
}
"""Title of each part, and what its sizes count."""

TITLES = {
    "books": "save, tell and track together",
    "save": "save the record",
    "tell": "tell Optuna",
    "track": "track in MLflow",
    "ask": "ask the sampler",
    "resume": "read the study's records, once a run",
    "resolve": "`best_config`, whole calls",
    "kept": "archives that all studies deploy, once a run",
    "open": "open the archive",
    "open_each": "the same for each member",
    "build_each": "build the archive, for each member",
    "sample": "read a sample at random",
    "worker_fork": "proportional set size of a forked worker",
    "worker_forkserver": "of one from the fork server",
    "tree_fork": "of all processes with forked workers",
    "tree_forkserver": "of all with workers from the fork server",
}
"""What each key of a document is, in the order of the table."""

_VERDICTS = {True: "yes", False: "NO", None: "cannot be told"}


def write_records(part: str, document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write JSON, Markdown and plot of one part and give their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{document['circumstances']['measured_at'][:10]}-growth-{part}"
    json_path, text_path, plot_path = (folder / f"{name}.{ending}" for ending in ("json", "md", "png"))
    json_path.write_text(json.dumps(document, indent=1) + "\n")
    text_path.write_text(markdown(part, document, plot_path.name))
    draw(part, document, plot_path)
    return [json_path, text_path, plot_path]


def markdown(part: str, document: Mapping[str, Any], plot: str | None = None) -> str:
    """Write one part as Markdown."""
    about, (title, counted) = document["circumstances"], HEADS[part]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    priority = "; at idle priority beside other work" if about["idle_priority"] else ""
    entries = {name: document[name] for name in TITLES if name in document}
    sizes = max((entry["sizes"] for entry in entries.values()), key=len)
    header = ("", "unit", *(f"{size:,} {counted}" for size in sizes), "largest over smallest", "at most", "reached")
    quick = " (quick: no figures to go by)" if about["quick"] else ""
    where = (
        f"{about['machine']}, {about['environment']}; load {about['load_before']:.1f} before, "
        f"{about['load_after']:.1f} after{priority}; {about['took_s'] / 60:.0f} min. Versions: {versions}."
    )
    how = (
        "Sizes took turns in random order; medians, with first and ninth decile in brackets. Ratios are geometric "
        "means of pairs with their 95 % interval, and reach the limit when the whole interval does."
    )
    plots = [f"![costs over {counted}]({plot})"] if plot else []
    table = _lines(header, [_row(TITLES[name], entry, sizes) for name, entry in entries.items()])
    return "\n\n".join([f"# {title}, {about['measured_at'][:10]}{quick}", where, how, *plots, table]) + "\n"


def _row(title: str, entry: Mapping[str, Any], sizes: list[int]) -> tuple[str, ...]:
    costs = (_cost(entry["by_size"].get(str(size))) for size in sizes)
    if entry["limit"] is None:
        return (title, entry["by_size_unit"], *costs, "", "", "")
    low, high = entry["interval"]["low"], entry["interval"]["high"]
    ratio = f"{entry['figure']:.3g} ({low:.3g} to {high:.3g})"
    return (title, entry["by_size_unit"], *costs, ratio, f"{entry['limit']:g}", _VERDICTS[entry["reached"]])


def _cost(found: Mapping[str, float] | None) -> str:
    return "" if found is None else f"{found['median']:.3g} ({found['p10']:.3g} to {found['p90']:.3g})"


def _lines(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    written = [f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows)]
    return "\n".join(written)


def draw(part: str, document: Mapping[str, Any], path: Path) -> None:
    """Draw every cost over the sizes, costs of one unit together."""
    units: dict[str, list[str]] = {}
    for name in TITLES:
        if name in document:
            units.setdefault(document[name]["by_size_unit"], []).append(name)
    figure, axes = plt.subplots(
        1, len(units), figsize=(1.2 + 4.3 * len(units), 3.8), layout="constrained", squeeze=False
    )
    for axis, (unit, names) in zip(axes[0], units.items(), strict=True):
        for name in names:
            by_size = document[name]["by_size"]
            sizes = [int(size) for size in by_size]
            middle = [found["median"] for found in by_size.values()]
            axis.plot(sizes, middle, marker="o", ms=4, lw=1.3, label=TITLES[name].replace("`", ""))
            low, high = ([found[end] for found in by_size.values()] for end in ("p10", "p90"))
            axis.fill_between(sizes, low, high, alpha=0.15)
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_xlabel(HEADS[part][1], fontsize=9)
        axis.set_ylabel(unit, fontsize=9)
        axis.legend(fontsize=7)
    figure.suptitle(f"{HEADS[part][0]}, {document['circumstances']['machine']}", fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)
