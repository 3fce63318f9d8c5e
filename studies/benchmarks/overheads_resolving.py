"""Overheads of resolving and loading: imports, `best_loader` with a full registry, and the loader that it gives."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from overheads_figures import Entry, Scale, entry, ratio_entry, spread
from torch.utils.data import DataLoader, Dataset, TensorDataset

from autotune.data.facts import dataset_facts
from autotune.machine import machine_facts
from autotune.registry import open_registry
from autotune.resolve.best import best_config, best_loader
from autotune.spec import DatasetSource, Decision, Interval, LoaderConfig, Measurement, TrialRecord, Window, Workload
from autotune.spec.record import new_key

STUDIES_OF_ONE_DATASET = 10
RECORDS_OF_ONE_STUDY = 100
DECISIONS_OF_ONE_STUDY = 100

IMPORT_LIMIT = 0.05
BEST_LOADER_LIMIT_MS = 10.0
GROWTH_LIMIT = 2.0
LOADER_LIMIT = 1.02
"""The batches of both loaders cost the same; this much is allowed for what the rounds can tell."""

_UNCOUNTED_CALLS = 5
"""The first calls load modules and compile statements."""
_SAMPLES, _BATCH_SIZE = 8192, 32


def measure_imports(scale: Scale, _work: Path) -> dict[str, Entry]:
    """Time both imports in fresh interpreters that take turns in random order."""
    times: dict[str, list[float]] = {"autotune": [], "torch": []}
    order = random.Random(0)
    root = str(Path(__file__).resolve().parents[2])
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    for number in range(scale.imports + 1):
        for name in order.sample(list(times), len(times)):
            script = f"import time; start = time.perf_counter(); import {name}; print(time.perf_counter() - start)"
            done = subprocess.run(
                [sys.executable, "-c", script], env=environ, check=True, capture_output=True, text=True
            )
            if number:  # the first round brings the files into the page cache
                times[name].append(1000 * float(done.stdout))
    details = {f"{name}_ms": spread(taken) for name, taken in times.items()}
    return {"import": ratio_entry(times["autotune"], times["torch"], limit=IMPORT_LIMIT, **details)}


def measure_best_loader(scale: Scale, work: Path) -> dict[str, Entry]:
    """Time whole calls of `best_loader`, registries of both sizes in turn."""
    dataset = TensorDataset(torch.zeros(1000, 4))
    homes = {size: work / f"registry-{size}" for size in scale.records}
    for size, home in homes.items():
        fill(home, dataset, size)
        found = best_config(dataset, home=home, environ={})
        if found.match != "exact":
            raise SystemExit(f"the registry of {size} records must answer exactly, got {found}")
    times: dict[int, list[float]] = {size: [] for size in homes}
    order = random.Random(0)
    for number in range(scale.calls + _UNCOUNTED_CALLS):
        for size in order.sample(list(homes), len(homes)):
            taken_s = timed(lambda home=homes[size]: best_loader(dataset, home=home, environ={}))
            if number >= _UNCOUNTED_CALLS:
                times[size].append(1000 * taken_s)
    small, large = scale.records
    median_ms = spread(times[small])["median"]
    reached = median_ms < BEST_LOADER_LIMIT_MS
    return {
        "best_loader": entry(
            median_ms, "ms", limit=BEST_LOADER_LIMIT_MS, reached=reached, records=[small], ms=spread(times[small])
        ),
        "best_loader_growth": ratio_entry(
            times[large], times[small], limit=GROWTH_LIMIT, records=list(scale.records), ms=spread(times[large])
        ),
    }


def measure_loader(scale: Scale, work: Path) -> dict[str, Entry]:
    """Time epochs of a resolved PyTorch default against those of a plain DataLoader over the same samples.

    The samples cost next to nothing, so that whatever a batch costs beside them shows.
    """
    dataset = TensorDataset(torch.arange(4.0 * _SAMPLES).reshape(_SAMPLES, 4))
    home = work / "default"
    default = LoaderConfig.torch_default(_BATCH_SIZE).canonical(has_accelerator=machine_facts().has_accelerator)
    with open_registry(home) as registry:
        registry.save_decision(made_up_decision("default", default, dataset))
    entries = {}
    for name, shuffle in (("loader", False), ("loader_shuffled", True)):

        def ours(*, shuffle: bool = shuffle) -> Iterable[Any]:
            return best_loader(dataset, batch_size=_BATCH_SIZE, shuffle=shuffle, home=home, environ={})

        def plain(*, shuffle: bool = shuffle) -> Iterable[Any]:
            return DataLoader(dataset, batch_size=_BATCH_SIZE, shuffle=shuffle)

        entries[name] = _compare(ours, plain, rounds=scale.epochs)
    return entries


def _compare(ours: Callable[[], Iterable[Any]], plain: Callable[[], Iterable[Any]], *, rounds: int) -> Entry:
    """Time one epoch of each in every round, by loaders that are made anew and in random order.

    The epoch before it does not count: what making the loader left in the processor's caches would show.
    """
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    make = {"ours": ours, "plain": plain}
    order = random.Random(0)
    for number in range(rounds + 1):
        for name in order.sample(list(make), len(make)):
            loader = make[name]()
            _drain(loader)
            taken_s = timed(lambda loader=loader: _drain(loader))
            if number:
                times[name].append(1e6 * taken_s * _BATCH_SIZE / _SAMPLES)
    details = {f"{name}_us_a_batch": spread(taken) for name, taken in times.items()}
    return ratio_entry(times["ours"], times["plain"], limit=LOADER_LIMIT, **details)


def _drain(loader: Iterable[Any]) -> None:
    for _ in loader:
        pass


def timed(call: Callable[[], Any]) -> float:
    """Time one call in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# A registry of any size


def fill(home: Path, dataset: Dataset[Any], size: int) -> None:
    """Make a registry with so many records and as many decisions, one dataset in many being the one asked for."""
    facts, machine = dataset_facts(dataset), machine_facts()
    studies = max(1, size // RECORDS_OF_ONE_STUDY)
    config = LoaderConfig(num_workers=1).canonical(has_accelerator=machine.has_accelerator)
    decision = made_up_decision("study-0", config, dataset)
    with open_registry(home) as registry:
        for number in range(studies):
            other = number // STUDIES_OF_ONE_DATASET
            named = facts if other == 0 else facts.replace(type_name=f"pack.Dataset{other}")
            later = decision.decided_at + timedelta(milliseconds=number)
            key, study = new_key(), f"study-{number}"
            registry.save_decision(decision.replace(key=key, study=study, dataset=named, decided_at=later))
        registry.save_record(
            TrialRecord(
                key="first",
                study="study-0",
                workload=made_up_workload(),
                config=config,
                measurement=made_up_measurement(200.0),
                machine=machine,
                dataset=facts,
            )
        )
    multiply(home / "registry.db", studies, size)


def made_up_workload() -> Workload:
    """Give the workload of everything that is made up."""
    return Workload(dataset=DatasetSource(factory="pack:make"))


def made_up_decision(study: str, config: LoaderConfig, dataset: Dataset[Any]) -> Decision:
    """Give a decision for a dataset on this machine."""
    return Decision(
        study=study,
        outcome="gain",
        config=config,
        default=LoaderConfig(),
        ratio=Interval(mean=2.0, low=1.9, high=2.1),
        samples_per_s=200.0,
        workload=made_up_workload(),
        machine=machine_facts(),
        dataset=dataset_facts(dataset),
        why="made up for the benchmark",
    )


def made_up_measurement(rate: float) -> Measurement:
    """Give a measurement of usual size."""
    window = Window(seconds=0.5, samples=max(1, round(rate / 2)), batches=10, wait_s=0.1)
    return Measurement(
        samples_per_s=rate,
        steady=Interval(mean=rate, low=0.99 * rate, high=1.01 * rate),
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
        return ", ".join(changed.get(name, f'{table}."{name}"') for name in names)

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
