"""Trials per minute of one study on four machines against one.

Machines are emulated: nodes of a Ray cluster on this host, whose trials sleep in an emulated step for most of their
time. Each round runs the whole study once on one machine and once on four, in random order, each in a home of its own.
Run it as

    python studies/benchmarks/scaling.py [--rounds 3] [--trials 24] [--record]

`--record` writes the result with its circumstances to `studies/records/`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from autotune.compose import places, tune_on_ray
from autotune.machine import machine_facts
from autotune.ratios import ratio_interval
from autotune.spec import StudyListener, StudySpec
from autotune.spec.study_file import spec_from_fields

RECORDS = Path(__file__).resolve().parent.parent / "records"
MACHINES = 4
TARGET_RATIO = 3.2
STEP_MS = 30.0
SAMPLE_MS = 1.5


class SlowSamples(Dataset[torch.Tensor]):
    """Samples that are waited for, as from a disk far away, and cost no CPU time."""

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(SAMPLE_MS / 1000)
        return torch.full((8,), float(index))


def study(trials: int) -> StudySpec:
    """Write the study: most of a trial is spent in the emulated step."""
    return spec_from_fields(
        {
            "name": "scaling",
            "dataset": {"factory": "scaling:SlowSamples", "arguments": {}},
            "consumer": {"emulated": {"step_ms": STEP_MS}},
            "device": "cpu",
            "budget": {"time": "20m", "trials": trials},
            "space": {"batch_size": [4, 8, 16, 32], "num_workers": [0, 1, 2], "prefetch_factor": [1, 2, 4],
                      "cache": ["none"], "archive": ["files"]},
        }
    )  # fmt: skip


class Silent:
    """Is told how studies go, and says nothing."""

    def on_machines(self, present: Mapping[str, int]) -> None:
        """Check that all nodes measure for one study."""
        print(f"  machines: {dict(present)}", file=sys.stderr)

    def studying(self, machine_class: str) -> Sequence[StudyListener]:  # noqa: ARG002 - nobody is told
        """Give nobody."""
        return ()


@contextmanager
def ray_nodes(count: int) -> Iterator[str]:
    """Start a Ray cluster of so many small nodes; gives its address."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    os.environ["RAY_TMPDIR"] = folder
    cluster = Cluster(initialize_head=True, head_node_args=small)
    try:
        for _ in range(count - 1):
            cluster.add_node(**small)
        yield cluster.address
    finally:
        cluster.shutdown()
        del os.environ["RAY_TMPDIR"]
        shutil.rmtree(folder, ignore_errors=True)


def trials_per_minute(machines: int, trials: int) -> dict[str, float]:
    """Run the study on so many machines, and count what they measured."""
    with tempfile.TemporaryDirectory(prefix="autotune-scaling-") as home, ray_nodes(machines) as address:
        os.environ["AUTOTUNE_LOCK"] = str(Path(home) / "machine.lock")
        at = places(home, environ={})
        (summary,) = tune_on_ray(study(trials), address, at=at, listener=Silent(), own_home=Path(home)).values()
    rate = 60 * summary.process_runs / summary.wall_s
    print(f"  {machines} machines: {summary.process_runs} trials in {summary.wall_s:.0f} s", file=sys.stderr)
    return {"trials": summary.process_runs, "seconds": summary.wall_s, "per_minute": rate}


def measure(rounds: int, trials: int, seed: int = 0) -> dict[int, list[dict[str, float]]]:
    """Measure both numbers of machines in each round, in random order."""
    order = random.Random(seed)
    found: dict[int, list[dict[str, float]]] = {1: [], MACHINES: []}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for machines in order.sample(sorted(found), len(found)):
            found[machines].append(trials_per_minute(machines, trials))
    return found


def summarise(found: Mapping[int, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Give mean rates, and the paired ratio with its 95 % interval; none from a single round."""
    rates = {machines: [run["per_minute"] for run in runs] for machines, runs in found.items()}
    ratio = ratio_interval(rates[MACHINES], rates[1])
    return {
        "machines": MACHINES,
        "rounds": len(rates[1]),
        "per_minute": {str(machines): sum(each) / len(each) for machines, each in rates.items()},
        "ratio": ratio.model_dump() if ratio else {"mean": rates[MACHINES][0] / rates[1][0]},
        "target": TARGET_RATIO,
    }


def as_markdown(summary: Mapping[str, Any]) -> str:
    """Write the result as a table."""
    rows = "\n".join(f"| {machines} | {rate:.1f} |" for machines, rate in summary["per_minute"].items())
    ratio = summary["ratio"]
    interval = f" (95 % interval {ratio['low']:.2f} to {ratio['high']:.2f})" if "low" in ratio else ""
    return (
        f"| Ray nodes | trials per minute |\n| --- | --- |\n{rows}\n\n"
        f"Ratio: {ratio['mean']:.2f}{interval}, {summary['rounds']} interleaved rounds; wanted: at least "
        f"{summary['target']}.\nAn emulated step takes {STEP_MS:g} ms a batch, a sample {SAMPLE_MS:g} ms of waiting.\n"
    )


def record(summary: Mapping[str, Any], found: Mapping[int, Any]) -> Path:
    """Write the dated record, as JSON and as Markdown."""
    import ray

    now = datetime.now(UTC)
    facts = machine_facts(accelerator=False)
    document = {
        "benchmark": "scaling",
        "at": now.isoformat(timespec="seconds"),
        "machine": facts.machine_class,
        "environment": facts.environment,
        "versions": {**facts.versions, "ray": ray.__version__},
        "load_average": os.getloadavg()[0],
        "summary": summary,
        "runs": {str(machines): runs for machines, runs in found.items()},
    }
    RECORDS.mkdir(exist_ok=True)
    path = RECORDS / f"{now:%Y-%m-%d}-scaling.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    title = (
        f"# One study on {MACHINES} machines against one, {now:%Y-%m-%d}\n\n{facts.machine_class}, all nodes on it\n\n"
    )
    path.with_suffix(".md").write_text(title + as_markdown(summary))
    return path


def main() -> None:
    """Measure, print, and record where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds; an interval needs at least 2")
    parser.add_argument("--trials", type=int, default=24, help="most trials of each study's search")
    parser.add_argument("--record", action="store_true", help="write the result to studies/records/")
    options = parser.parse_args()
    found = measure(options.rounds, options.trials)
    summary = summarise(found)
    print(as_markdown(summary))
    if options.record:
        print(f"written to {record(summary, found)}")


if __name__ == "__main__":
    main()
