"""Trials per minute of one study on four machines against one.

Machines are emulated: nodes of a Ray cluster on this host, or workers, whose trials sleep in an emulated step for most
of their time. Each round runs the whole study once on one machine and once on four, in random order, each in a home of
its own. Run it as

    python studies/benchmarks/scaling.py [--rounds 3] [--trials 24] [--record] [--storage postgresql://...]

With `--storage`, a PostgreSQL database, workers share the study instead of Ray's nodes. `--record` writes the result
with its circumstances to `studies/records/`.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from autotune.compose import places, tune_on_ray, tune_shared, work
from autotune.machine import machine_facts
from autotune.ratios import ratio_interval
from autotune.registry import open_existing
from autotune.spec import OrderAnswer, StudyListener, StudyMachine, StudySpec, StudySummary, TrialClaim
from autotune.spec.study_file import spec_from_fields

RECORDS = Path(__file__).resolve().parent.parent / "records"
MACHINES = 4
TARGET_RATIO = 3.2
RAY, WORKERS = "Ray nodes", "workers over PostgreSQL"
STEP_MS = 150.0
SAMPLE_MS = 3.0
TRIAL_S = 7.0
"""Longest time in windows of a trial, which ends sooner where its rate is steady."""


def study(trials: int, name: str = "scaling") -> StudySpec:
    """Write the study: most of a trial is spent in the emulated step."""
    return spec_from_fields(
        {
            "name": name,
            "dataset": {"factory": "slow_samples:SlowSamples", "arguments": {"sample_ms": SAMPLE_MS}},
            "consumer": {"emulated": {"step_ms": STEP_MS}},
            "device": "cpu",
            "budget": {"time": "20m", "trials": trials},
            "time_cap_s": TRIAL_S,
            "confirm_time_cap_s": TRIAL_S,
            "space": {"batch_size": [16, 32, 56, 60, 64], "num_workers": [0, 1, 2, 3], "prefetch_factor": [1, 2, 4],
                      "cache": ["none"], "archive": ["files"]},
        }
    )  # fmt: skip


class Silent:
    """Is told how studies go, and says nothing."""

    def on_machines(self, present: Mapping[str, int]) -> None:
        """Show how many nodes measure for one study."""
        print(f"  machines: {dict(present)}", file=sys.stderr)

    def studying(self, machine_class: str) -> Sequence[StudyListener]:  # noqa: ARG002 - nobody is told
        """Give nobody."""
        return ()

    def on_waiting(self, why: str) -> None:
        """Say nothing."""

    def on_joined(self, machine: StudyMachine) -> None:
        """Say nothing."""

    def on_answered(self, answer: OrderAnswer) -> None:
        """Say nothing."""

    def on_refused(self, claim: TrialClaim) -> None:
        """Say nothing."""


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


def on_ray(machines: int, trials: int, home: Path) -> StudySummary:
    """Run the study on the nodes of a Ray cluster."""
    with ray_nodes(machines) as address:
        os.environ["AUTOTUNE_LOCK"] = str(home / "machine.lock")
        at = places(home, environ={})
        ended = tune_on_ray(study(trials), address, at=at, listener=Silent(), own_home=home, emulated=True)
        (summary,) = ended.values()
    return summary


def on_workers(machines: int, trials: int, home: Path, storage: str) -> StudySummary:
    """Run the study on workers that share a database; this process drives, and does not measure."""
    spec = study(trials, home.name)
    environ = {**os.environ, "AUTOTUNE_STORAGE": storage}
    workers = []
    for number in range(machines):
        own = {"AUTOTUNE_HOME": str(home / str(number)), "AUTOTUNE_LOCK": str(home / f"{number}.lock")}
        words = ["--work", spec.name, "--node", str(number), "--trials", str(trials)]
        workers.append(subprocess.Popen([sys.executable, __file__, *words], env={**environ, **own}))
    try:
        at = places(home, environ={"AUTOTUNE_STORAGE": storage})
        (summary,) = tune_shared(spec, at=at, listener=Silent(), measures=False).values()
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait()
    return summary


def check_all_measured(machines: int, summary: StudySummary, home: Path, storage: str | None) -> None:
    """Leave, where a machine had no part in the study: it would count as one that did."""
    with open_existing(home, storage) as registry:
        hosts = {record.machine.host for record in registry.records(summary.study)}
    if len(hosts) != machines:
        raise SystemExit(f"{machines} machines were to measure, got {len(hosts)}: {', '.join(sorted(hosts))}")


def trials_per_minute(machines: int, trials: int, storage: str | None) -> dict[str, float]:
    """Run the study on so many machines, and count what they measured."""
    with tempfile.TemporaryDirectory(prefix="autotune-scaling-") as home:
        run = functools.partial(on_workers, storage=storage) if storage else on_ray
        summary = run(machines, trials, Path(home))
        check_all_measured(machines, summary, Path(home), storage)
    rate = 60 * summary.process_runs / summary.wall_s
    print(f"  {machines} machines: {summary.process_runs} trials in {summary.wall_s:.0f} s", file=sys.stderr)
    return {"trials": summary.process_runs, "seconds": summary.wall_s, "per_minute": rate}


def measure(rounds: int, trials: int, storage: str | None, seed: int = 0) -> dict[int, list[dict[str, float]]]:
    """Measure both numbers of machines in each round, in random order."""
    order = random.Random(seed)
    found: dict[int, list[dict[str, float]]] = {1: [], MACHINES: []}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for machines in order.sample(sorted(found), len(found)):
            found[machines].append(trials_per_minute(machines, trials, storage))
    return found


def summarise(found: Mapping[int, Sequence[Mapping[str, float]]], over: str) -> dict[str, Any]:
    """Give mean rates, and the paired ratio with its 95 % interval; none from a single round."""
    rates = {machines: [run["per_minute"] for run in runs] for machines, runs in found.items()}
    ratio = ratio_interval(rates[MACHINES], rates[1])
    return {
        "over": over,
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
        f"| {summary['over']} | trials per minute |\n| --- | --- |\n{rows}\n\n"
        f"Ratio: {ratio['mean']:.2f}{interval}, {summary['rounds']} interleaved rounds; wanted: at least "
        f"{summary['target']}.\nAn emulated step takes {STEP_MS:g} ms a batch, a sample {SAMPLE_MS:g} ms of waiting; "
        f"a trial measures for up to {TRIAL_S:g} s.\n"
    )


def record(summary: Mapping[str, Any], found: Mapping[int, Any]) -> Path:
    """Write the dated record, as JSON and as Markdown."""
    now = datetime.now(UTC)
    facts = machine_facts(accelerator=False)
    document = {
        "benchmark": "scaling",
        "at": now.isoformat(timespec="seconds"),
        "machine": facts.machine_class,
        "environment": facts.environment,
        "versions": {**facts.versions, **({"ray": metadata.version("ray")} if summary["over"] == RAY else {})},
        "load_average": os.getloadavg()[0],
        "summary": summary,
        "runs": {str(machines): runs for machines, runs in found.items()},
    }
    RECORDS.mkdir(exist_ok=True)
    name = "scaling" if summary["over"] == RAY else "scaling-workers"
    path = RECORDS / f"{now:%Y-%m-%d}-{name}.json"
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
    parser.add_argument("--storage", help="PostgreSQL database through which workers share the study")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--node", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        spec = study(options.trials, options.work)
        work(spec, at=places(), listener=Silent(), idle_s=120.0, emulated_node=options.node)
        return
    found = measure(options.rounds, options.trials, options.storage)
    summary = summarise(found, WORKERS if options.storage else RAY)
    print(as_markdown(summary))
    if options.record:
        print(f"written to {record(summary, found)}")


if __name__ == "__main__":
    main()
