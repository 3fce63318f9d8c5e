"""The record of `data_systems.py`: JSON, a table for people, and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rivals_plot import Bar, Panel, draw

OURS = "autotune"


def write_records(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write JSON, Markdown and plot of one run and give their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{document['circumstances']['at'][:10]}-data-systems"
    json_path, text_path, plot_path = (folder / f"{name}.{ending}" for ending in ("json", "md", "png"))
    json_path.write_text(json.dumps(document, indent=1) + "\n")
    draw(panels(document), plot_path)
    text_path.write_text(markdown(document, plot_path.name))
    return [json_path, text_path, plot_path]


def panels(document: Mapping[str, Any]) -> list[Panel]:
    """Give for each system the ratios that are drawn."""
    found = []
    for system in document["systems"]:
        bars = [
            Bar(title=entry["title"], same=False, **result["ratio"])
            for key, entry in document.items()
            if key not in (OURS, "systems", "circumstances")
            for result in entry["results"]
            if result["system"] == system["study"] and result["ratio"]
        ]
        found.append(Panel(title=f"{system['study']}, batches of {system['batch_size']}\n{system['title']}", bars=bars))
    return found


def markdown(document: Mapping[str, Any], plot: str) -> str:
    """Write a run as text."""
    about = document["circumstances"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    circumstances = (
        f"{about['machine']}; load {about['load_average'][0]:.1f} before, {about['load_average'][1]:.1f} after; "
        f"{about['took_s'] / 60:.0f} min. Versions: {versions}."
    )
    method = (
        "Generated data of the study files, loaded and not consumed. Autotune tuned each for "
        f"{about['tuning_seconds']:g} s at the batch size that the system's documents recommend. Then every loader was "
        "timed by a clock that is none of autotune's: its own interpreter for each run, a warm-up epoch (in which "
        f"caches fill), then whole epochs for at least {about['seconds']:g} s, in {about['blocks']} blocks of random "
        "order. Archives were built before. Rates are means over the blocks, lowest and highest in brackets; ratios "
        "are paired by block, with 95 % intervals."
    )
    plotted = f"![rate of autotune's pick over the others']({plot})"
    parts = [f"# How fast the data systems load, {about['at'][:10]}", circumstances, method, plotted]
    for system in document["systems"]:
        parts += [f"## {system['study']}: {system['title']}", _table(document, system), _about(system)]
    return "\n\n".join(parts) + "\n"


def _about(system: Mapping[str, Any]) -> str:
    return (
        f"Documented settings: {system['recommended']['source']}. Autotune: {system['outcome'].replace('_', ' ')}, "
        f"{system['processes']} processes, {system['tuning_s']:.0f} s."
    )


def _table(document: Mapping[str, Any], system: Mapping[str, Any]) -> str:
    lines = ["| loader | configuration | samples/s | autotune over it |", "| --- | --- | --- | --- |"]
    for key, entry in document.items():
        if key in ("systems", "circumstances"):
            continue
        for result in entry["results"]:
            if result["system"] != system["study"]:
                continue
            rates, ratio = result["rates"], result["ratio"]
            rate = (
                f"{result['samples_per_s']:,.0f} ({min(rates):,.0f}–{max(rates):,.0f})" if rates else result["failed"]
            )
            factor = f"{ratio['mean']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})" if ratio else "–"
            lines.append(f"| {entry['title']} | {result['config']} | {rate} | {factor} |")
    return "\n".join(lines)
