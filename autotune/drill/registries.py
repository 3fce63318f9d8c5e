"""Faults around the registry: locked, damaged or absent, senseless inside, and an MLflow that is down."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from autotune.data.facts import dataset_facts
from autotune.drill._base import promised, refusal
from autotune.drill.datasets import Numbers
from autotune.errors import RegistryError
from autotune.machine import machine_facts
from autotune.registry import Registry, open_registry
from autotune.resolve.best import best_config, best_loader
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import (
    Consumer,
    DatasetSource,
    Decision,
    Failure,
    Interval,
    LoaderConfig,
    MachineFacts,
    Measurement,
    TrialFinished,
    TrialRecord,
    Window,
    Workload,
)
from autotune.tracking.mlflow_listener import TOPIC, MlflowListener, default_tracking_uri

_STUDY = "drill"
_WORKLOAD = Workload(dataset=DatasetSource(factory="autotune.drill.datasets:Numbers"), consumer=Consumer())
_LOCKED_S = 1.0
"""How long a write waits for the lock; a study's waits 30 s."""
_TELLINGS = 3
"""A listener gives up after half a minute, which making MLflow's database may take on a busy machine."""
_SAFE = LoaderConfig()


def deploy(home: Path, dataset: Dataset[Any], config: LoaderConfig, machine: MachineFacts | None = None) -> None:
    """Write down that a configuration was found best for a dataset.

    Args:
        home: Folder of the registry.
        dataset: The dataset.
        config: What is deployed.
        machine: Where it was found; None is here.
    """
    decision = Decision(
        study=_STUDY,
        outcome="gain",
        config=config.canonical(has_accelerator=False),
        default=LoaderConfig(),
        samples_per_s=200.0,
        default_samples_per_s=100.0,
        ratio=Interval(mean=2.0, low=1.9, high=2.1),
        pairs=5,
        workload=_WORKLOAD,
        machine=machine or machine_facts(),
        dataset=dataset_facts(dataset),
        why="a drill says so",
    )
    with open_registry(home) as registry:
        registry.save_decision(decision)


def served(dataset: Dataset[Any], home: Path) -> tuple[DataLoader[Any], str]:
    """Give the loader that training gets for a dataset, and what it is warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loader = best_loader(dataset, home=home, environ={})
    return loader, " ".join(str(one.message) for one in caught if issubclass(one.category, AutotuneWarning))


def locked_registry(folder: Path) -> str:
    """Write while somebody else holds the file exclusively (row 8)."""
    with open_registry(folder, wait_s=_LOCKED_S) as registry:
        registry.save_record(_record("before"))
        with closing(sqlite3.connect(folder / "registry.db", isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            told = refusal(
                lambda: registry.save_record(_record("during"), outbox=[(TOPIC, "during", "{}")]),
                RegistryError,
                "registry.db is locked",
            )
        promised(registry.record("during") is None, "a part of what was refused is there: its record")
        promised(not registry.outbox_pending(TOPIC), "a part of what was refused is there: its row for MLflow")
        registry.save_record(_record("after"))
        kept = sorted(one.key for one in registry.records(_STUDY))
        promised(kept == ["after", "before"], f"records were to be kept before and after, got {kept}")
    return f"{told}; no part of it was written, and the next record was"


def mlflow_down(folder: Path) -> str:
    """Tell an MLflow that refuses connections of three trials, and one that works later (row 9)."""
    keys = [f"{number:032x}" for number in range(3)]
    with open_registry(folder) as registry, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        down = MlflowListener(registry, tracking_uri=f"http://127.0.0.1:{taken.getsockname()[1]}")
        for key in keys:
            registry.save_record(_record(key))
            down.on_trial(TrialFinished(run_key="a" * 32, phase="search", record=_record(key), budget_s=60.0))
        waiting = down.finish()
        promised(waiting == len(keys), f"{len(keys)} trials were to wait for MLflow, got {waiting}")
        kept = sorted(one.key for one in registry.records(_STUDY))
        promised(kept == keys, f"records were to be kept, got {kept}")
        left = _told_later(registry, folder)
        promised(left == 0, f"{left} trials are still not told to an MLflow that works")
    return f"{waiting} trials were kept while it was down, and told once it worked"


def _told_later(registry: Registry, folder: Path) -> int:
    """Tell an MLflow that works, again where a busy machine takes its time, and give what is left to tell."""
    uri, left = default_tracking_uri(folder), 0
    for _ in range(_TELLINGS):
        left = MlflowListener(registry, tracking_uri=uri, artifact_root=folder / "artifacts").finish()
        if not left:
            break
    return left


def senseless_results(folder: Path) -> str:
    """Put an infinite rate into the registry, and a best that other hardware found; ask for no sample (row 30)."""
    dataset = Numbers()
    here, elsewhere = folder / "here", folder / "elsewhere"
    deploy(here, dataset, LoaderConfig(archive="npy"))  # which nobody has built
    with open_registry(here) as registry:
        for workers in (1, 2):
            registry.save_record(_measured(f"k{workers}", dataset, LoaderConfig(num_workers=workers)))
    with closing(sqlite3.connect(here / "registry.db")) as connection, connection:
        connection.execute("UPDATE trial_records SET samples_per_s = 9e999 WHERE num_workers = 2")
    loader, _ = served(dataset, here)
    promised(loader.num_workers == 1, f"the finite rate of 1 worker was to count, got {loader.num_workers} workers")
    hardware = machine_facts().replace(accelerator="H100", accelerator_count=8, cpu_count=4096)
    deploy(elsewhere, dataset, LoaderConfig(num_workers=64), machine=hardware)
    found = best_config(dataset, home=elsewhere, environ={})
    promised((found.match, found.config) == ("default", _SAFE), f"the default was to be served, got {found}")
    promised("another machine" in found.why[0], f"the reason was to be another machine, got {found.why}")
    empty = best_config(Numbers(0), home=here, environ={})
    promised(empty.match == "default" and "empty" in empty.why[0], f"an empty dataset was to be told, got {empty}")
    return f"the infinite rate did not count; the default was served where the best was {found.why[0]}; {empty.why[0]}"


def damaged_registry(folder: Path) -> str:
    """Delete the registry, cut it in half, fill it with something else, put a folder in its place (row 31)."""
    dataset = Numbers()
    told = ""
    for name, damage in _DAMAGES.items():
        home = folder / name
        deploy(home, dataset, LoaderConfig(num_workers=1))
        good = best_config(dataset, home=home, environ={})
        promised(good.match == "exact", f"what is deployed was to be served while the registry is whole, got {good}")
        damage(home / "registry.db")
        loader, told = served(dataset, home)
        promised("registry" in told, f"the registry is {name}: that was to be warned of, got {told!r}")
        sizes = (loader.batch_size, loader.num_workers)
        promised(sizes == (_SAFE.batch_size, 0), f"the registry is {name}: the default was to be served, got {sizes}")
        read = sum(len(batch) for batch in loader)
        promised(read == len(dataset), f"the registry is {name}: {len(dataset)} samples were to come, got {read}")
    return f"the default was served {len(_DAMAGES)} times, with a warning: {told}"


def _delete(file: Path) -> None:
    for beside in file.parent.glob("registry.db*"):
        beside.unlink()


def _cut(file: Path) -> None:
    data = file.read_bytes()
    _delete(file)
    file.write_bytes(data[: len(data) // 2])


def _overwrite(file: Path) -> None:
    _delete(file)
    file.write_bytes(b"this is no database " * 1000)


def _replace_by_folder(file: Path) -> None:
    shutil.rmtree(file.parent)
    file.mkdir(parents=True)


_DAMAGES = {"deleted": _delete, "cut": _cut, "overwritten": _overwrite, "a folder": _replace_by_folder}


def _record(key: str) -> TrialRecord:
    failure = Failure(kind="crashed", phase="measure", message="for the drill")
    return TrialRecord(key=key, study=_STUDY, workload=_WORKLOAD, config=_SAFE, failure=failure)


def _measured(key: str, dataset: Dataset[Any], config: LoaderConfig) -> TrialRecord:
    rate = 50.0
    measurement = Measurement(
        samples_per_s=rate,
        steady=Interval(mean=rate, low=rate, high=rate),
        windows=(Window(seconds=1.0, samples=50, batches=5, wait_s=0.1),),
        whole_epochs=True,
        epoch_samples=len(dataset),  # type: ignore[arg-type]  # it is map-style
        wait_p50_s=0.001,
        wait_p95_s=0.002,
        data_wait_share=0.5,
        stopped="precise",
    )
    return TrialRecord(
        key=key,
        study=_STUDY,
        workload=_WORKLOAD,
        config=config.canonical(has_accelerator=False),
        machine=machine_facts(),
        dataset=dataset_facts(dataset),
        measurement=measurement,
    )
