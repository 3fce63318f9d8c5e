"""The record of the overheads benchmark: lines for the terminal, Markdown, and a plot against the limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

TITLES = {
    "import": "`import autotune` over `import torch`",
    "best_loader": "`best_loader` at {few} records",
    "best_loader_growth": "the same at {many} records over {few}",
    "loader": "time a batch, resolved loader over plain DataLoader",
    "loader_shuffled": "the same, shuffled",
    "trial": "share of trials outside build, warm-up and windows",
    "tracking": "rate without MLflow over rate with it",
    "books": "save, tell and track at {many} trials over {few}",
    "ask": "ask at {many} trials",
}
"""What each key of the document is, in the order of the table."""

_SHARES = frozenset({"import", "trial"})
_VERDICTS = {True: "yes", False: "NO", None: "cannot be told"}
_COLOURS = {True: "#5b9a57", False: "#a01010", None: "#7f7f7f"}


def table(document: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Give overhead, figure, limit and verdict of every entry."""
    rows = []
    for name in TITLES:
        if name in document:
            one = document[name]
            limit = "none" if one["limit"] is None else f"at most {_shown(name, one['limit'], one['unit'])}"
            verdict = "" if one["limit"] is None else _VERDICTS[one["reached"]]
            rows.append((_title(name, one), _figure(name, one), limit, verdict))
    return rows


def _title(name: str, one: Mapping[str, Any]) -> str:
    sizes = one.get("records") or one.get("trials") or [0]
    return TITLES[name].format(few=f"{sizes[0]:,}", many=f"{sizes[-1]:,}")


def _figure(name: str, one: Mapping[str, Any]) -> str:
    text = _shown(name, one["figure"], one["unit"])
    if one["interval"] is None:
        return text
    ends = (_shown(name, one["interval"][end], one["unit"]) for end in ("low", "high"))
    return f"{text} ({' to '.join(ends)})"


def _shown(name: str, value: float, unit: str) -> str:
    return f"{value:.2%}" if name in _SHARES else f"{value:.3g} {unit}".rstrip()


def print_table(document: Mapping[str, Any]) -> None:
    """Print the figures beside their limits."""
    about = document["circumstances"]
    print(f"{about['machine']}, {about['versions']}")
    for title, figure, limit, verdict in table(document):
        print(f"{title.replace('`', ''):<52} {figure:<28} {limit:<18} {verdict}".rstrip())


def write_records(document: Mapping[str, Any], folder: Path, name: str) -> list[Path]:
    """Write JSON, Markdown and plot of one run and give their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    json_path, text_path, plot_path = (folder / f"{name}.{ending}" for ending in ("json", "md", "png"))
    json_path.write_text(json.dumps(document, indent=1) + "\n")
    text_path.write_text(markdown(document, plot_path.name))
    draw(document, plot_path)
    return [json_path, text_path, plot_path]


def markdown(document: Mapping[str, Any], plot: str) -> str:
    """Write the record as Markdown."""
    about = document["circumstances"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    parts = [
        f"# Overheads, {about['measured_at'][:10]}",
        (
            f"{about['machine']}, {about['environment']}; load {about['load_before']:.1f} before, "
            f"{about['load_after']:.1f} after; {about['took_s'] / 60:.0f} min. Versions: {versions}."
        ),
        (
            "Whatever is compared took turns in random order; ratios are geometric means of pairs with their 95 % "
            "interval, and reach a limit when their whole interval does. Where no interval of pairs is given "
            "(trials), lowest and highest study stand in brackets."
        ),
        f"![overheads against their limits]({plot})",
        _lines(("overhead", "found", "to reach", "reached"), table(document)),
        *_details(document),
    ]
    return "\n\n".join(parts) + "\n"


def _details(document: Mapping[str, Any]) -> list[str]:
    """Give the tables behind the figures, of those parts that were run."""
    parts = []
    if "books" in document:
        few, many = map(str, document["books"]["trials"])
        steps = {**document["books"]["ms_by_step"], "ask": document["ask"]["ms"]}
        rows = [(step, f"{found[few]['median']:.1f}", f"{found[many]['median']:.1f}") for step, found in steps.items()]
        parts += ["## Milliseconds a trial, by step", _lines(("step", f"{few} trials", f"{many} trials"), rows)]
    if "trial" in document:
        for title, key in (("a trial, mean of each study", "seconds_a_trial"), ("a study", "seconds_a_study")):
            studies = document["trial"][key]
            rows = [(name, *(f"{study[name]:.3g}" for study in studies)) for name in studies[0]]
            header = ("", *(f"study {number + 1}" for number in range(len(studies))))
            parts += [f"## Seconds of {title}", _lines(header, rows)]
    return parts


def _lines(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    written = [f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows)]
    return "\n".join(written)


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Draw every overhead as a share of its limit."""
    names = [name for name in TITLES if name in document and document[name]["limit"]]
    figure, axis = plt.subplots(figsize=(8.5, 1.4 + 0.45 * len(names)), layout="constrained")
    for place, name in enumerate(names):
        one = document[name]
        share, limit = one["figure"] / one["limit"], one["limit"]
        axis.barh(place, share, 0.6, color=_COLOURS[one["reached"]])
        if one["interval"] is not None:
            low, high = one["interval"]["low"] / limit, one["interval"]["high"] / limit
            axis.plot([low, high], [place, place], color="#202020", lw=1.2)
        axis.text(0.01, place, f" {_figure(name, one)}", va="center", fontsize=8, transform=axis.get_yaxis_transform())
    axis.axvline(1.0, color="black", lw=0.9, ls=":")
    axis.set_yticks(range(len(names)), [_title(name, document[name]).replace("`", "") for name in names], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("share of the limit (1 is the limit; line: interval)", fontsize=9)
    axis.set_title(f"Overheads, {document['circumstances']['machine']}", fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)
