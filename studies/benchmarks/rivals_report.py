"""The record of the rivals benchmark: JSON with every run, tables in Markdown, and a plot."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rivals_contenders import CONTENDERS, OURS
from rivals_plot import Bar, Panel, draw
from rivals_workloads import CONSUMER_TITLES, LETTERS


def write_records(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write JSON, Markdown and plot of one run and give their paths; a run of some workloads only has their letters."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted({task["workload"] for task in document["tasks"]})
    part = "" if set(letters) == set(LETTERS) else "-" + "".join(letters)
    name = f"{document['at'][:10]}-rivals{part}"
    json_path, text_path, plot_path = (folder / f"{name}.{ending}" for ending in ("json", "md", "png"))
    json_path.write_text(json.dumps(document, indent=1) + "\n")
    draw(panels(document), plot_path)
    text_path.write_text(markdown(document, plot_path.name))
    return [json_path, text_path, plot_path]


def markdown(document: Mapping[str, Any], plot: str | None = None) -> str:
    """Write a run as text.

    Args:
        document: What was found.
        plot: Name of the plot beside the text.
    """
    parts = [f"# Picks against rivals' picks, {document['at'][:10]}", *_circumstances(document)]
    if plot:
        parts.append(f"![rate of autotune's pick over the rivals']({plot})")
    parts += ["## Against the best rival", _verdicts(document), "## Every pick", _about_tables()]
    for task in document["tasks"]:
        parts += [f"### {_title(task)}", _table_of(document, task), *_ours_in(document, task)]
    parts += ["## Where the contenders come from", _sources(document)]
    return "\n\n".join(parts) + "\n"


def panels(document: Mapping[str, Any]) -> list[Panel]:
    """Give for each task the ratios that are drawn."""
    found = []
    for task in document["tasks"]:
        bars = [
            Bar(title=contender.title, same=result["same_pick"], **result["ratio"])
            for contender in CONTENDERS
            if contender.key != OURS
            for result in _results(document, contender.key, task)
            if result.get("ratio")
        ]
        found.append(
            Panel(title=f"{task['workload']}: {task['title']}\n{CONSUMER_TITLES[task['consumer']]}", bars=bars)
        )
    return found


def _results(document: Mapping[str, Any], key: str, task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    named = (task["workload"], task["consumer"])
    return [one for one in document[key]["results"] if (one["workload"], one["consumer"]) == named]


def _title(task: Mapping[str, Any]) -> str:
    return f"{task['workload']}: {task['title']}; {CONSUMER_TITLES[task['consumer']]}"


def _circumstances(document: Mapping[str, Any]) -> list[str]:
    machine = document["machine"]
    load = document["load_average_before"][0], document["load_average_after"][0]
    named = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return [
        (
            f"{machine['system']}, {machine['cpu_count']} CPUs, {machine['memory_bytes'] / 2**30:.0f} GiB, "
            f"{machine['accelerator'] or 'no accelerator'}, {machine['environment']}; load {load[0]:.1f} before, "
            f"{load[1]:.1f} after; {document['took_s'] / 60:.0f} min."
        ),
        f"Versions: {named}.",
        (
            f"Every contender has {document['tuning_seconds']:g} s for its pick, at batches of "
            f"{document['batch_size']}; what goes by a rule takes none. A run that has begun when the time is over is "
            "finished, so picking can take longer. Those that search measure each configuration in a fresh process as "
            "autotune's study does, once, and take the highest. Loadtune measures by itself. Rivals that say nothing "
            "of it keep their workers over epochs, which favours them."
        ),
        (
            "Then every pick is timed by one clock that is none of autotune's: an interpreter of its own for each run, "
            "a warm-up epoch, then whole epochs from `iter()` to the last batch, their boundaries and the consumer "
            f"included, for at least {document['seconds']:g} s, in {document['blocks']} blocks of random order. "
            "Archives are built before, memory caches fill in the warm-up epoch. Ratios are paired by block, with "
            "95 % intervals. Equal picks are timed once for all who made them."
        ),
    ]


def _verdicts(document: Mapping[str, Any]) -> str:
    lines = []
    for task in document["tasks"]:
        verdict = task["verdict"]
        alone = verdict.get("loader_arguments_alone")
        lines.append(
            [
                task["workload"],
                task["consumer"],
                f"**{verdict['verdict']}**",
                verdict["why"],
                alone["why"] if alone else "–",
            ]
        )
    header = ["workload", "consumer", "autotune's pick is", "against the best rival", "against loader arguments alone"]
    about = (
        "The last column leaves out the random search, which draws from autotune's own archives, caches and decoders. "
        "`within noise` is an interval around 1, `not resolved` one that is wider than a factor of 1.5."
    )
    return f"{_table(header, lines)}\n\n{about}"


def _about_tables() -> str:
    return (
        "Rates in samples/s: mean over the blocks, lowest and highest in brackets. The ratio is that of autotune's "
        "pick over the row's. `s` is the time that picking took, `processes` those that it measured in."
    )


def _table_of(document: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    lines = []
    for contender in CONTENDERS:
        for result in _results(document, contender.key, task):
            name = f"**{contender.title}**" if contender.key == OURS else contender.title
            if "pick" not in result:
                lines.append([name, result["failed"], "–", "–", f"{result['tuning_s']:.0f}", "–"])
                continue
            taken = [f"{result['tuning_s']:.0f}", str(result["processes"])]
            lines.append([name, result["pick"], _rate(result), _ratio(result, contender.key), *taken])
        if absent := document[contender.key].get("absent"):
            lines.append([contender.title, f"absent: {absent}", "–", "–", "–", "–"])
    return _table(["contender", "pick", "samples/s", "autotune over it", "s", "processes"], lines)


def _ours_in(document: Mapping[str, Any], task: Mapping[str, Any]) -> Iterable[str]:
    for result in _results(document, OURS, task):
        if more := result.get("more"):
            yield f"autotune said: {more['outcome'].replace('_', ' ')}. {more['why']}"


def _rate(result: Mapping[str, Any]) -> str:
    if result["failed"]:
        return f"failed: {result['failed']}"
    rates = result["rates"]
    return f"{result['samples_per_s']:,.0f} ({min(rates):,.0f}–{max(rates):,.0f})" if rates else "–"


def _ratio(result: Mapping[str, Any], key: str) -> str:
    if key == OURS:
        return "1"
    if result["same_pick"]:
        return "same pick"
    ratio = result["ratio"]
    return f"{ratio['mean']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})" if ratio else "–"


def _sources(document: Mapping[str, Any]) -> str:
    return _table(
        ["contender", "source"],
        [[document[contender.key]["title"], document[contender.key]["source"]] for contender in CONTENDERS],
    )


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
