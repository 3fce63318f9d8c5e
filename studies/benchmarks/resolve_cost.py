"""What resolving costs: `best_loader` with a full registry, and `import autotune` against `import torch`.

    python studies/benchmarks/resolve_cost.py [--records 10000 1000000] [--rounds 200] [--record]

Imports are done before `best_loader` is timed; registries of different sizes take turns within each round.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, TensorDataset

from autotune.data.facts import dataset_facts
from autotune.machine import machine_facts
from autotune.registry import open_registry
from autotune.resolve.best import best_config, best_loader
from autotune.spec import DatasetSource, Decision, Interval, LoaderConfig, Measurement, TrialRecord, Window, Workload

RECORDS = Path(__file__).resolve().parent.parent / "records"

STUDIES_OF_ONE_DATASET = 10
RECORDS_OF_ONE_STUDY = 100
DECISIONS_OF_ONE_STUDY = 100

BEST_LOADER_LIMIT_MS = 10.0
GROWTH_LIMIT = 2.0
IMPORT_LIMIT = 0.05


def main() -> None:
    """Measure, print, and with `--record` keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[10_000], help="sizes of the registries")
    parser.add_argument("--rounds", type=int, default=200, help="calls of best_loader for each size")
    parser.add_argument("--imports", type=int, default=10, help="fresh interpreters for each import")
    parser.add_argument("--scratch", type=Path, default=None, help="folder for the registries (2.5 kB a record)")
    parser.add_argument("--record", action="store_true", help="write the result to studies/records/")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        loader = measure_best_loader(Path(folder), options.records, options.rounds)
    result = {
        "benchmark": "resolve_cost",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_facts().model_dump(mode="json"),
        "best_loader_ms": loader,
        "import": measure_imports(options.imports),
    }
    report(result)
    if options.record:
        target = RECORDS / f"{datetime.now(UTC):%Y-%m-%d}_resolve_cost.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(result, indent=2) + "\n")
        print(f"written: studies/records/{target.name}")


def measure_best_loader(folder: Path, sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Time whole calls of `best_loader` in milliseconds, registries of all sizes in turn."""
    dataset = TensorDataset(torch.zeros(1000, 4))
    homes = {size: folder / str(size) for size in sizes}
    for size, home in homes.items():
        fill(home, dataset, size)
        found = best_config(dataset, home=home)
        if found.match != "exact":
            raise SystemExit(f"the registry of {size} records must answer exactly, got {found}")
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for number in range(rounds + 5):
        for size, home in homes.items():
            taken = timed(lambda home=home: best_loader(dataset, home=home))
            if number >= 5:  # the first calls load modules and compile statements
                times[size].append(1000 * taken)
    return {str(size): spread(taken) for size, taken in times.items()}


def timed(call: Callable[[], Any]) -> float:
    """Time one call in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def spread(values: Sequence[float]) -> dict[str, float]:
    """Give median, first and ninth decile, and the number of values."""
    tenths = statistics.quantiles(values, n=10)
    shown = {"median": statistics.median(values), "p10": tenths[0], "p90": tenths[-1]}
    return {**{name: round(value, 4) for name, value in shown.items()}, "runs": len(values)}


def fill(home: Path, dataset: Dataset[Any], size: int) -> None:
    """Make a registry with so many records and as many decisions, one dataset in many being the one asked for."""
    facts, machine = dataset_facts(dataset), machine_facts()
    studies = max(1, size // RECORDS_OF_ONE_STUDY)
    workload = Workload(dataset=DatasetSource(factory="pack:make"))
    config = LoaderConfig(num_workers=1).canonical(has_accelerator=machine.has_accelerator)
    with open_registry(home) as registry:
        for number in range(studies):
            other = number // STUDIES_OF_ONE_DATASET
            named = facts if other == 0 else facts.replace(type_name=f"pack.Dataset{other}")
            registry.save_decision(
                Decision(
                    study=f"study-{number}",
                    outcome="gain",
                    config=config,
                    default=LoaderConfig(),
                    ratio=Interval(mean=2.0, low=1.9, high=2.1),
                    samples_per_s=200.0,
                    workload=workload,
                    machine=machine,
                    dataset=named,
                    why="made up for the benchmark",
                )
            )
        registry.save_record(
            TrialRecord(
                key="first",
                study="study-0",
                workload=workload,
                config=config,
                measurement=made_up_measurement(),
                machine=machine,
                dataset=facts,
            )
        )
    multiply(home / "registry.db", studies, size)


def made_up_measurement() -> Measurement:
    """Give a measurement of usual size."""
    window = Window(seconds=0.5, samples=100, batches=10, wait_s=0.1)
    return Measurement(
        samples_per_s=200.0,
        steady=Interval(mean=200.0, low=198.0, high=202.0),
        windows=(window,) * 5,
        whole_epochs=False,
        epoch_samples=1000,
        wait_p50_s=0.001,
        wait_p95_s=0.002,
        data_wait_share=0.5,
        stopped="precise",
    )


def multiply(file: Path, studies: int, size: int) -> None:
    """Copy the record and the decisions inside the database, with keys, studies and times of their own."""
    connection = sqlite3.connect(file)

    def columns(table: str, **changed: str) -> str:
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        return ", ".join(changed.get(name, f"{table}.{name}") for name in names)

    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
    record = columns(
        "trial_records",
        key="lower(hex(randomblob(16)))",
        study=f"'study-' || (n.i % {studies})",
        started_us="trial_records.started_us + n.i",
        samples_per_s="100.0 + abs(random() % 100)",
    )
    count = max(1, size - 1)
    connection.execute(f"INSERT INTO trial_records {numbers.format(count=count)} SELECT {record} FROM n, trial_records")
    decision = columns("decisions", key="lower(hex(randomblob(16)))", decided_us="decisions.decided_us - n.i")
    copies = DECISIONS_OF_ONE_STUDY - 1
    connection.execute(f"INSERT INTO decisions {numbers.format(count=copies)} SELECT {decision} FROM n, decisions")
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def measure_imports(rounds: int) -> dict[str, Any]:
    """Time both imports in fresh interpreters that take turns."""
    times: dict[str, list[float]] = {"torch": [], "autotune": []}
    for _ in range(rounds):
        for name, taken in times.items():
            script = f"import time; start = time.perf_counter(); import {name}; print(time.perf_counter() - start)"
            done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
            taken.append(1000 * float(done.stdout))
    ratios = [one / other for one, other in zip(times["autotune"], times["torch"], strict=True)]
    return {
        "autotune_ms": spread(times["autotune"]),
        "torch_ms": spread(times["torch"]),
        "ratio": spread(ratios),
    }


def report(result: Mapping[str, Any]) -> None:
    """Print the figures beside their limits."""
    machine = result["machine"]
    print(f"{machine['system']}, {machine['cpu_count']} CPUs, {machine['versions']}")
    loader = result["best_loader_ms"]
    for size, taken in loader.items():
        print(
            f"best_loader at {int(size):>9,} records: {taken['median']:.2f} ms "
            f"({taken['p10']:.2f} to {taken['p90']:.2f} over {taken['runs']} calls)"
        )
    sizes = sorted(loader, key=int)
    smallest, largest = loader[sizes[0]]["median"], loader[sizes[-1]]["median"]
    print(f"  to reach: under {BEST_LOADER_LIMIT_MS:.0f} ms: {'yes' if smallest < BEST_LOADER_LIMIT_MS else 'NO'}")
    if len(sizes) > 1:
        reached = "yes" if largest < GROWTH_LIMIT * smallest else "NO"
        print(f"  to reach: growth under {GROWTH_LIMIT:.0f} times: {reached} ({largest / smallest:.2f})")
    imports = result["import"]
    ratio = imports["ratio"]
    print(
        f"import autotune {imports['autotune_ms']['median']:.1f} ms, torch {imports['torch_ms']['median']:.0f} ms, "
        f"ratio {ratio['median']:.2%} ({ratio['p10']:.2%} to {ratio['p90']:.2%})"
    )
    print(f"  to reach: under {IMPORT_LIMIT:.0%}: {'yes' if ratio['median'] < IMPORT_LIMIT else 'NO'}")


if __name__ == "__main__":
    main()
