"""Building an archive in shards by one and by two: processes of one builder, and builders with ranks of their own.

Each build stores drawn canopy-height tiles, decoded, in a folder of its own, in a process that is forked for it. The
four ways, and a tar (one file, whose bytes all go through one process) by one and by two processes, follow each other
in random order within each round, after one round that does not count. Archives of a format must have equal checksums.

    python studies/benchmarks/sharded_build.py [--samples 1500] [--rounds 6] [--record]

`--record` writes the result with its circumstances to `studies/records/`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import statistics
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from autotune.data.archives.listing import list_archives
from autotune.data.archives.shard_plan import Sharding
from autotune.data.archives.store import open_or_build, verify
from autotune.data.datasets.factories import forest_gaps
from autotune.machine import machine_facts
from autotune.ratios import ratio_interval
from autotune.spec import LoaderConfig

RECORDS = Path(__file__).resolve().parent.parent / "records"
_CONTEXT = multiprocessing.get_context("fork")


class Way(NamedTuple):
    """One way to build: so many builders with so many processes each."""

    archive: str
    builders: int
    workers: int


WAYS: Mapping[str, Way] = {
    "shards, 1 process": Way("webdataset", 1, 1),
    "shards, 2 processes": Way("webdataset", 1, 2),
    "shards, 1 builder": Way("webdataset", 1, 0),
    "shards, 2 builders": Way("webdataset", 2, 0),
    "tar, 1 process": Way("tar", 1, 1),
    "tar, 2 processes": Way("tar", 1, 2),
}
RATIOS = (
    ("shards, 1 process", "shards, 2 processes"),
    ("shards, 1 builder", "shards, 2 builders"),
    ("tar, 1 process", "tar, 2 processes"),
    ("tar, 2 processes", "shards, 2 processes"),
)


def build(way: Way, dataset: Dataset[Any], root: Path) -> float:
    """Build an archive and give the seconds until the last builder has it."""
    config = LoaderConfig(archive=way.archive, stored="decoded")
    started_s = perf_counter()
    parts = [Sharding(rank=rank, world_size=way.builders) for rank in range(way.builders)]
    calls = [
        partial(open_or_build, dataset, config, root, workers=way.workers, sharding=sharding) for sharding in parts
    ]
    processes = [_CONTEXT.Process(target=call) for call in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = perf_counter() - started_s
    if any(process.exitcode for process in processes):
        raise SystemExit(f"{way} failed")
    return seconds


def checked(root: Path) -> dict[str, Any]:
    """Read the one archive of a folder, and give its checksums."""
    (entry,) = list_archives(root)
    manifest = verify(root / entry.name, full=True)
    return {name: file.sha256 for name, file in manifest.files.items()}


def measure(samples: int, rounds: int, work: Path, seed: int = 0) -> dict[str, list[float]]:
    """Time all ways, interleaved."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    order, dataset = random.Random(seed), forest_gaps(root=str(work / "tiles"), count=samples)
    found: dict[str, dict[str, Any]] = {}
    for number in range(rounds + 1):
        for name in order.sample(list(WAYS), len(WAYS)):
            root = work / "archives"
            took_s = build(WAYS[name], dataset, root)
            if found.setdefault(WAYS[name].archive, checks := checked(root)) != checks:
                raise SystemExit(f"{name}: other bytes than before")
            shutil.rmtree(root)
            if number:
                seconds[name].append(took_s)
    return seconds


def summarise(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Give medians and spread, and ratios of paired rounds with their 95 % intervals."""
    return {
        "rounds": len(next(iter(seconds.values()))),
        "seconds": {
            name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
            for name, values in seconds.items()
        },
        "ratios": {f"{slow} / {fast}": ratio(seconds[slow], seconds[fast]) for slow, fast in RATIOS},
    }


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Give the ratio of paired times with its 95 % interval."""
    found = ratio_interval(slow, fast)
    assert found is not None  # there are two rounds or more
    return found.model_dump()


def as_markdown(summary: dict[str, Any], samples: int) -> str:
    """Write the result as two tables."""
    times = "\n".join(
        f"| {name} | {one['median']:.2f} | {one['min']:.2f} to {one['max']:.2f} |"
        for name, one in summary["seconds"].items()
    )
    ratios = "\n".join(
        f"| {name} | {one['mean']:.2f} | {one['low']:.2f} to {one['high']:.2f} |"
        for name, one in summary["ratios"].items()
    )
    return (
        f"{samples:,} tiles of 256 x 256, stored decoded; {summary['rounds']} interleaved rounds.\n\n"
        f"| build | median s | all rounds |\n| --- | --- | --- |\n{times}\n\n"
        f"| time over time | mean | 95 % interval |\n| --- | --- | --- |\n{ratios}\n"
    )


def record(summary: dict[str, Any], seconds: dict[str, list[float]], samples: int) -> Path:
    """Write the dated record, as JSON and as Markdown."""
    now, facts = datetime.now(UTC), machine_facts(accelerator=False)
    document = {
        "benchmark": "sharded_build",
        "at": now.isoformat(timespec="seconds"),
        "machine": facts.machine_class,
        "cpu_count": facts.cpu_count,
        "environment": facts.environment,
        "versions": dict(facts.versions),
        "load_average": os.getloadavg()[0],
        "samples": samples,
        "summary": summary,
        "seconds": seconds,
    }
    RECORDS.mkdir(exist_ok=True)
    path = RECORDS / f"{now:%Y-%m-%d}-sharded-build.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    title = (
        f"# Building an archive in shards, {now:%Y-%m-%d}\n\n{facts.machine_class}; load {os.getloadavg()[0]:.1f}\n\n"
    )
    path.with_suffix(".md").write_text(title + as_markdown(summary, samples))
    return path


def main() -> None:
    """Measure, print, and record where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1500, help="tiles of each archive")
    parser.add_argument("--rounds", type=int, default=6, help="rounds that count, at least 2")
    parser.add_argument("--work", type=Path, help="folder of what is built (default: a temporary one)")
    parser.add_argument("--record", action="store_true", help="write the result to studies/records/")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error(f"an interval needs at least 2 rounds, got {arguments.rounds}")
    with TemporaryDirectory(dir=arguments.work) as work:
        seconds = measure(arguments.samples, arguments.rounds, Path(work))
    summary = summarise(seconds)
    print(as_markdown(summary, arguments.samples))
    if arguments.record:
        print(f"written to {record(summary, seconds, arguments.samples)}")


if __name__ == "__main__":
    main()
