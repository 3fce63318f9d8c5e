"""How long a trial process takes to be ready: forked from the preloaded server against a fresh interpreter.

Both are asked for the same inspection of a tiny dataset, in random order within each round, after
one round that does not count. Run it as

    python studies/benchmarks/trial_start.py [--rounds 10] [--record]

`--record` writes the result with its circumstances to `studies/records/`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from scipy.special import stdtrit

from autotune.machine import machine_facts
from autotune.spec import DatasetSource, Failure, LoaderConfig, TrialRequest, Workload
from autotune.trial import LocalRunner

WAYS = ("fork", "fresh")
RECORDS = Path(__file__).resolve().parent.parent / "records"


def make_dataset() -> Any:
    """Make a dataset that costs next to nothing."""
    import torch
    from torch.utils.data import TensorDataset

    return TensorDataset(torch.zeros(16, 1))


def measure(rounds: int, seed: int = 0) -> dict[str, list[float]]:
    """Time whole trials of both ways, interleaved."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    order = random.Random(seed)
    source = DatasetSource(factory="trial_start:make_dataset")
    runners = {way: LocalRunner(start=way) for way in WAYS}
    try:
        with TemporaryDirectory() as folder:
            request = TrialRequest(
                study="trial_start",
                workload=Workload(dataset=source, device="cpu"),
                config=LoaderConfig(),
                archive_root=folder,
                cache_root=folder,
            )
            for number in range(rounds + 1):
                for way in order.sample(WAYS, len(WAYS)):
                    started_s = perf_counter()
                    found = runners[way].inspect(request)
                    if isinstance(found, Failure):
                        raise SystemExit(f"{way}: {found.message}")
                    if number:
                        seconds[way].append(perf_counter() - started_s)
    finally:
        for runner in runners.values():
            runner.close()
    return seconds


def summarise(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Give medians, and the ratio of paired rounds with its 95 % interval."""
    ratios = [fresh / fork for fork, fresh in zip(seconds["fork"], seconds["fresh"], strict=True)]
    mean, spread = statistics.fmean(ratios), statistics.stdev(ratios)
    half = float(stdtrit(len(ratios) - 1, 0.975)) * spread / len(ratios) ** 0.5
    return {
        "rounds": len(ratios),
        "fork_s": {"median": statistics.median(seconds["fork"]), "max": max(seconds["fork"])},
        "fresh_s": {"median": statistics.median(seconds["fresh"]), "max": max(seconds["fresh"])},
        "fresh_over_fork": {"mean": mean, "low": mean - half, "high": mean + half},
    }


def as_markdown(summary: dict[str, Any]) -> str:
    """Write the result as a table."""
    ratio = summary["fresh_over_fork"]
    rows = "\n".join(
        f"| {name} | {summary[key]['median']:.3f} | {summary[key]['max']:.3f} |"
        for name, key in (("forked from the server", "fork_s"), ("fresh interpreter", "fresh_s"))
    )
    return (
        f"| trial process | median s | longest s |\n| --- | --- | --- |\n{rows}\n\n"
        f"Fresh over forked: {ratio['mean']:.1f} (95 % interval {ratio['low']:.1f} to {ratio['high']:.1f}), "
        f"{summary['rounds']} interleaved rounds.\n"
    )


def record(summary: dict[str, Any], seconds: dict[str, list[float]]) -> Path:
    """Write the dated record, as JSON and as Markdown."""
    now = datetime.now(UTC)
    facts = machine_facts(accelerator=False)
    document = {
        "benchmark": "trial_start",
        "at": now.isoformat(timespec="seconds"),
        "machine": facts.machine_class,
        "environment": facts.environment,
        "versions": dict(facts.versions),
        "load_average": os.getloadavg()[0],
        "summary": summary,
        "seconds": seconds,
    }
    RECORDS.mkdir(exist_ok=True)
    path = RECORDS / f"{now:%Y-%m-%d}-trial-start.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    title = f"# Start of a trial process, {now:%Y-%m-%d}\n\n{facts.machine_class}; load {os.getloadavg()[0]:.1f}\n\n"
    path.with_suffix(".md").write_text(title + as_markdown(summary))
    return path


def main() -> None:
    """Measure, print, and record where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="rounds that count, at least 2")
    parser.add_argument("--record", action="store_true", help="write the result to studies/records/")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error(f"an interval needs at least 2 rounds, got {arguments.rounds}")
    seconds = measure(arguments.rounds)
    summary = summarise(seconds)
    print(as_markdown(summary))
    if arguments.record:
        print(f"written to {record(summary, seconds)}")


if __name__ == "__main__":
    main()
