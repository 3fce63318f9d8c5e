"""A registry of any size for the load benchmark, and the questions that are asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from autotune.registry import Registry, open_registry
from autotune.registry.engine import make_engine, registry_url
from autotune.registry.rows import trial_columns
from autotune.registry.tables import TrialRow
from autotune.resolve.question import Question
from autotune.spec import (
    DatasetFacts,
    DatasetSource,
    Decision,
    Interval,
    LoaderConfig,
    MachineFacts,
    Measurement,
    TrialRecord,
    Window,
    Workload,
)
from autotune.spec.record import new_key

STUDIES = 200
DECISIONS_OF_ONE_STUDY = 5
BATCH_SIZES = (None, 8, 16, 64)
_CHUNK = 2000
_START = datetime(2026, 1, 1, tzinfo=UTC)
_MACHINE = MachineFacts(
    host="node",
    system="Linux x86_64",
    cpu_count=16,
    memory_bytes=64 * 2**30,
    versions={"python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6"},
)
_WORKLOAD = Workload(dataset=DatasetSource(factory="pack:make"))


def fill(home: Path, url: str | None, records: int) -> None:
    """Make a registry with so many records, and some decisions for each study."""
    with open_registry(home, url) as registry:
        for number in range(STUDIES):
            for nth in range(DECISIONS_OF_ONE_STUDY):
                decide(registry, number, nth)
            registry.save_record(_record(number, 0))
    engine = make_engine(registry_url(home, url), "write")
    rows = _rows(max(0, records - STUDIES))
    try:
        while chunk := list(islice(rows, _CHUNK)):
            with engine.begin() as connection:
                connection.execute(insert(TrialRow), chunk)
    finally:
        engine.dispose()


def decide(registry: Registry, number: int, nth: int) -> None:
    """Deploy another configuration for a study, as a nightly run would."""
    registry.save_decision(
        Decision(
            study=f"study-{number}",
            outcome="gain",
            config=_config(nth),
            default=LoaderConfig(),
            ratio=Interval(mean=2.0, low=1.9, high=2.1),
            samples_per_s=200.0,
            workload=_WORKLOAD,
            machine=_MACHINE,
            dataset=_dataset(number),
            why="made up for the benchmark",
            decided_at=_START + timedelta(minutes=nth),
        )
    )


def questions() -> list[str]:
    """Give what is asked: each study's dataset, with some batch sizes that the caller pins."""
    return [
        Question(
            dataset=_dataset(number), machine=_MACHINE, pins={} if size is None else {"batch_size": size}
        ).to_json()
        for number in range(STUDIES)
        for size in BATCH_SIZES
    ]


def _rows(count: int) -> Iterator[dict[str, Any]]:
    columns = [trial_columns(_record(number, number)) for number in range(STUDIES)]
    for number in range(count):
        like = columns[number % STUDIES]
        yield {
            **like,
            "key": new_key(),
            "started_us": like["started_us"] + number,
            "samples_per_s": 100.0 + number % 100,
        }


def _record(study: int, nth: int) -> TrialRecord:
    rate = 100.0 + nth
    window = Window(seconds=0.5, samples=max(1, round(rate / 2)), batches=10, wait_s=0.1)
    measurement = Measurement(
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
    return TrialRecord(
        key=new_key(),
        study=f"study-{study}",
        workload=_WORKLOAD,
        config=_config(nth),
        measurement=measurement,
        machine=_MACHINE,
        dataset=_dataset(study),
    )


def _config(nth: int) -> LoaderConfig:
    size = BATCH_SIZES[nth % len(BATCH_SIZES)] or 32
    return LoaderConfig(batch_size=size, num_workers=1 + nth % 8).canonical(has_accelerator=False)


def _dataset(study: int) -> DatasetFacts:
    return DatasetFacts(type_name=f"pack.Dataset{study}", length=1000, structure="(float32[1,256,256], int64[])")
