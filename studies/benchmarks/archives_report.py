"""The record of the archives benchmark: JSON with every run, tables in Markdown, and a plot."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from archives_plot import draw
from archives_setting import BOUND, FILES, SCANNED, SCANNED_SAMPLES
from scipy.special import stdtrit

Key = tuple[str, str, int]
"""Row, state of the page cache, workers."""
_CONFIDENCE = 0.95
_RESOLVED = 1.5
"""Widest interval around 1, end over end, that still says something."""


class Spread(NamedTuple):
    """Median of some rounds, with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Give the spread of some values."""
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))


class Ratio(NamedTuple):
    """Geometric mean of paired ratios with its interval."""

    mean: float
    low: float
    high: float
    rounds: int


def write_records(document: Mapping[str, Any], folder: Path, name: str) -> list[Path]:
    """Write JSON, Markdown and plot of one run and give their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    json_path, text_path, plot_path = (folder / f"{name}.{ending}" for ending in ("json", "md", "png"))
    json_path.write_text(json.dumps(document, indent=1) + "\n")
    text_path.write_text(_markdown(document, plot_path.name))
    draw(_bars(document), _title(document), plot_path)
    return [json_path, text_path, plot_path]


# Figures


def rates(document: Mapping[str, Any]) -> dict[Key, dict[int, float]]:
    """Give samples/s of each row, state and worker count, by round."""
    found: dict[Key, dict[int, float]] = {}
    for run in document["runs"]:
        found.setdefault((run["row"], run["state"], run["workers"]), {})[run["round"]] = run["samples_per_s"]
    return found


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> Ratio | None:
    """Give the ratio of two rows from the rounds that have both; None with fewer than two."""
    logs = [math.log(one[number] / other[number]) for number in sorted(one.keys() & other.keys())]
    if len(logs) < 2:
        return None
    mean = statistics.fmean(logs)
    half = float(stdtrit(len(logs) - 1, (1 + _CONFIDENCE) / 2)) * statistics.stdev(logs) / len(logs) ** 0.5
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), len(logs))


def _to_files(found: Mapping[Key, Mapping[int, float]], key: Key) -> Spread | None:
    """Give the spread of a row's ratios to the plain files without workers, in the same round and state."""
    files = found.get((FILES, key[1], 0), {})
    rounds = found.get(key, {}).keys() & files.keys()
    return Spread.of(found[key][number] / files[number] for number in rounds) if rounds else None


def _bars(document: Mapping[str, Any]) -> list[tuple[str, str, str, int, Spread]]:
    """Give row, family, state, workers and ratio to plain files, in the order of the rows."""
    found = rates(document)
    bars = []
    for row in document["rows"]:
        for key in sorted(key for key in found if key[0] == row["name"]):
            ratio = _to_files(found, key)
            if ratio is not None:
                bars.append((row["name"], row["family"], key[1], key[2], ratio))
    return bars


# Text


def _markdown(document: Mapping[str, Any], plot: str) -> str:
    found = rates(document)
    parts = [
        f"# Archives and caches, {document['at'][:10]}: {_title(document)}",
        _circumstances(document),
        f"![ratio to plain files]({plot})",
        "## Samples per second",
        (
            "Median of the rounds, lowest and highest in brackets; the ratio is to the plain files with no workers and "
            "the same page cache, paired by round. `~` marks a page cache that was not shown to be as asked."
        ),
        _rate_table(document, found),
        "## Ours against the package that defines the format",
        "Ratio paired by round, with its 95 % interval; at least 1.0 within noise is to be reached.",
        _against_table(document, found),
        *_highlights(found),
        "## Building",
        _full_build_table(document),
        "### Seconds by number of processes",
        _build_table(document),
    ]
    if document["left_out"]:
        parts += ["## Left out", "\n".join(f"- {line}" for line in document["left_out"])]
    return "\n\n".join(parts) + "\n"


def _title(document: Mapping[str, Any]) -> str:
    workload = document["workload"]
    return f"{document['samples']:,} {workload['title']}, batch {workload['batch']}"


def _circumstances(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    cpus, memory_gib = machine["cpu_count"], machine["memory_bytes"] / 2**30
    versions = {**machine["versions"], **document["versions"]}
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    rivals = ", ".join(f"{name} {version}" for name, version in document.get("rivals_versions", {}).items())
    load = document["load_average_before"][0], document["load_average_after"][0]
    paragraphs = (
        (
            f"{machine['system']}, {cpus} CPUs, {memory_gib:.0f} GiB, {machine['accelerator'] or 'no accelerator'}, "
            f"{machine['environment']}; load {load[0]:.1f} before, {load[1]:.1f} after; "
            f"{document['took_s'] / 60:.0f} min."
        ),
        f"Versions: {named}." + (f" In an environment of their own: {rivals}." if rivals else ""),
        (
            f"{document['rounds']} rounds, order drawn anew in each; every measurement is one process, forked from one "
            "that has imported everything. A window is whole epochs for every row (at least 0.25 s of them, "
            f"{document['seconds']:g} s in all). Warm: files resident; a warm-up is not counted (one epoch; without "
            "workers half a second of it). Cold: files evicted and their absence checked, then the first epoch of the "
            "process, with the workers' start and all opening. What lies below the page cache (the disk's or the "
            "host's own) is as it was."
        ),
        (
            "Each row's content was compared with the plain files by checksum before the first round. Everything that "
            "streams has a shuffle buffer of one size. The memory cache is filled before its first epoch. Windows in "
            "which others took CPU time are repeated, but not in the rivals' environment and not cold."
        ),
    )
    return "\n\n".join(paragraphs)


def _columns(found: Mapping[Key, Any]) -> list[tuple[str, int]]:
    return sorted({(state, workers) for _, state, workers in found}, key=lambda one: (one[0] != "warm", one[1]))


def _rate_table(document: Mapping[str, Any], found: Mapping[Key, Mapping[int, float]]) -> str:
    columns = _columns(found)
    header = ["row", *(f"{state}, {workers} workers" for state, workers in columns)]
    doubtful = {
        (run["row"], run["state"], run["workers"])
        for run in document["runs"]
        if run["page_cache"] not in (run["state"], "none read")
    }
    lines = []
    for row in document["rows"]:
        keys = [(row["name"], state, workers) for state, workers in columns]
        if any(key in found for key in keys):
            name = f"**{row['name']}**" if row["family"] == "ours" else row["name"]
            lines.append([name, *(_rate_cell(found, key, doubtful=key in doubtful) for key in keys)])
    return _table(header, lines)


def _rate_cell(found: Mapping[Key, Mapping[int, float]], key: Key, *, doubtful: bool) -> str:
    if key not in found:
        return "–"
    rate, ratio = Spread.of(found[key].values()), _to_files(found, key)
    text = f"{_short(rate.median)} ({_short(rate.low)}–{_short(rate.high)})"
    return ("~ " if doubtful else "") + text + (f", x{ratio.median:.3g}" if ratio else "")


def _against_table(document: Mapping[str, Any], found: Mapping[Key, Mapping[int, float]]) -> str:
    lines = []
    for row in document["rows"]:
        for state, workers in _columns(found):
            ratio = paired(
                found.get((row["name"], state, workers), {}), found.get((row["against"], state, workers), {})
            )
            if ratio is not None:
                case = f"{state}, {workers} workers"
                interval = f"{ratio.low:.3g}–{ratio.high:.3g}"
                lines.append([row["name"], row["against"], case, f"{ratio.mean:.2f}", interval, _verdict(ratio)])
    return _table(["ours", "package", "", "ratio", "95 % interval", ""], lines)


def _verdict(ratio: Ratio) -> str:
    if ratio.low >= 1:
        return "faster"
    if ratio.high < 1:
        return "**slower**"
    return "within noise" if ratio.high / ratio.low <= _RESOLVED else "not resolved"


def _highlights(found: Mapping[Key, Mapping[int, float]]) -> list[str]:
    """Say how far the best row is from the bound, and what scanning the tar costs."""
    lines = []
    bound = found.get((BOUND, "warm", 0))
    memory = max(
        (found[key] for key in found if key[0] == "memory cache"),
        key=lambda one: statistics.median(one.values()),
        default=None,
    )
    share = paired(memory, bound) if bound and memory else None
    if share is not None:
        lines.append(
            f"The memory cache reaches {share.mean:.0%} of the replayed-batch bound "
            f"(95 % interval {share.low:.0%}–{share.high:.0%})."
        )
    tar = next((found[key] for key in found if key[0] in ("tar encoded", "tar decoded") and key[1:] == ("warm", 0)), {})
    scanned = paired(tar, found.get((SCANNED, "warm", 0), {}))
    if scanned is not None:
        lines.append(
            f"The tar with an index is {scanned.mean:,.0f} times as fast as a scan of the tar for every sample "
            f"(interval {scanned.low:,.0f}–{scanned.high:,.0f}; the scan was timed on {SCANNED_SAMPLES} samples and "
            "its rate extrapolated)."
        )
    return ["\n\n".join(lines)] if lines else []


def _full_build_table(document: Mapping[str, Any]) -> str:
    lines = [
        [
            entry["name"],
            entry["family"],
            str(entry["workers"]),
            f"{entry['seconds']:.1f}",
            f"{entry['bytes'] / 1e6:.1f}",
        ]
        for entry in document["full_builds"]
    ]
    return _table(["what was written", "by", "processes", "s", "MB"], lines)


def _build_table(document: Mapping[str, Any]) -> str:
    seconds: dict[tuple[str, int], dict[int, float]] = {}
    for entry in document["builds"]:
        seconds.setdefault((entry["name"], entry["workers"]), {})[entry["round"]] = entry["seconds"]
    lines = []
    for name in dict.fromkeys(name for name, _ in seconds):
        cells = [
            f"{statistics.median(seconds[name, workers].values()):.2f}" if (name, workers) in seconds else "–"
            for workers in (0, 1, 2)
        ]
        ratio = paired(seconds.get((name, 1), {}), seconds.get((name, 2), {}))
        shown = f"{ratio.mean:.2f} ({ratio.low:.3g}–{ratio.high:.3g})" if ratio else "–"
        lines.append([name, *cells, shown])
    samples = max((entry["samples"] for entry in document["builds"]), default=0)
    title = f"Median seconds for {samples:,} samples; 0 builds in the calling process. Last: 2 processes against 1."
    return f"{title}\n\n" + _table(["format", "0", "1", "2", "speed-up, 95 % interval"], sorted(lines))


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
