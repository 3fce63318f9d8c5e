"""`ReplayRunner`: answers from recorded rates instead of measuring; the fake that tests of studies use."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from autotune.constants import RETRY_LIMIT
from autotune.errors import SpecError
from autotune.spec import (
    DatasetFacts,
    Failure,
    Inspection,
    Interval,
    LoaderConfig,
    MachineFacts,
    Measurement,
    MemoryUse,
    TrialRecord,
    TrialRequest,
    Value,
    Window,
)
from autotune.spec.base import SCHEMA_VERSION

_WINDOWS = 4
"""Windows that an answer pretends to have, all at its rate."""


class RecordedConfig(Value):
    """What was recorded of one configuration.

    Attributes:
        config: The configuration, canonical.
        rates: Rate of each repeat in samples/s, in the order in which they were measured; a
            repeat that gave no sensible rate is None.
        failure: What it came to instead of rates.
        device_peak_bytes: Peak of device memory.
        wall_s: Wall time of one trial.
    """

    config: LoaderConfig
    rates: tuple[float | None, ...] = ()
    failure: Failure | None = None
    device_peak_bytes: int | None = None
    wall_s: float = Field(default=3.0, ge=0)


class Landscape(Value):
    """Recorded rates over a space of configurations; its JSON form is the file format.

    Attributes:
        name: What was recorded, for people to read.
        machine: Where.
        dataset: On what.
        sample_bytes: Bytes of one decoded sample.
        limit_bytes: Limit of device memory.
        entries: The configurations.
    """

    name: str
    machine: MachineFacts
    dataset: DatasetFacts
    sample_bytes: int = Field(default=0, ge=0)
    limit_bytes: int | None = None
    entries: tuple[RecordedConfig, ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a landscape file.

        Raises:
            SpecError: It is no landscape.
        """
        return cls.from_json(path.read_bytes())

    def save(self, path: Path) -> None:
        """Write a landscape file, indented for people and version control."""
        document = {"schema_version": SCHEMA_VERSION, **self.model_dump(mode="json")}
        path.write_text(json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n")

    @classmethod
    def from_records(cls, name: str, records: Iterable[TrialRecord]) -> Self:
        """Put records of repeated trials together, by configuration.

        Raises:
            SpecError: No record knows its machine and dataset.
        """
        known = [record for record in records if record.machine is not None and record.dataset is not None]
        if not known:
            raise SpecError("a landscape needs records with machine and dataset, got none")
        entries: dict[LoaderConfig, list[TrialRecord]] = {}
        for record in known:
            entries.setdefault(record.config, []).append(record)
        first = known[0]
        assert first.machine is not None  # noqa: S101 - chosen so
        assert first.dataset is not None  # noqa: S101 - chosen so
        recorded = tuple(_recorded(config, found) for config, found in entries.items())
        return cls(name=name, machine=first.machine, dataset=first.dataset, entries=recorded)


class ReplayRunner:
    """Answers requests from a landscape; a `autotune.trial.TrialRunner`.

    Repeats are drawn by a block bootstrap: blocks of neighbours in time, so that the drift of the
    recording stays in it. All of it follows from the seed and the order of the requests.

    Args:
        landscape: The recorded rates.
        seed: Seed of the draws.
        noise: Standard deviation of the logarithm of a factor that each answer gets on top.
        block: Length of the blocks.
    """

    def __init__(self, landscape: Landscape, *, seed: int = 0, noise: float = 0.0, block: int = 2) -> None:
        if noise < 0 or block < 1:
            raise SpecError(f"noise is at least 0 and block at least 1, got noise={noise}, block={block}")
        self.runs = 0
        self._landscape = landscape
        self._accelerated = landscape.machine.has_accelerator
        self._entries = {self._key(entry.config): entry for entry in landscape.entries}
        self._generator = np.random.default_rng(seed)
        self._noise = noise
        self._block = block
        self._drawn: dict[LoaderConfig, list[float | None]] = {}

    def run(self, request: TrialRequest) -> TrialRecord:
        """Answer with a drawn repeat of the configuration; an unknown one is `invalid`."""
        self.runs += 1
        entry = self._entries.get(self._key(request.config))
        failure = self._unknown(request.config) if entry is None else entry.failure
        measurement = None
        if entry is not None and failure is None:
            rate = self._draw(entry)
            if rate is None or not math.isfinite(rate) or rate <= 0:
                failure = Failure(kind="senseless", phase="report", message=f"a rate is above 0, got {rate}")
            else:
                measurement = self._measurement(request, entry, rate)
        return TrialRecord(
            key=request.key,
            study=request.study,
            number=request.number,
            phase=request.phase,
            workload=request.workload,
            config=request.config,
            measurement=measurement,
            failure=failure,
            machine=self._landscape.machine,
            dataset=self._landscape.dataset,
            wall_s=0.0 if entry is None else entry.wall_s,
            attempts=1 + RETRY_LIMIT if failure is not None and failure.retryable else 1,
        )

    def inspect(self, request: TrialRequest) -> Inspection | Failure:  # noqa: ARG002 - the protocol's
        """Answer with dataset and machine of the recording."""
        return Inspection(
            dataset=self._landscape.dataset,
            machine=self._landscape.machine,
            sample_structure=self._landscape.dataset.structure,
            sample_bytes=self._landscape.sample_bytes,
            largest_sample_bytes=self._landscape.sample_bytes,
        )

    def close(self) -> None:
        """Do nothing: nothing was started."""

    def _key(self, config: LoaderConfig) -> LoaderConfig:
        return config.canonical(has_accelerator=self._accelerated)

    def _unknown(self, config: LoaderConfig) -> Failure:
        message = f"a replay knows {len(self._entries)} recorded configurations, got another one: {config.label()}"
        return Failure(kind="invalid", phase="start", message=message)

    def _draw(self, entry: RecordedConfig) -> float | None:
        """Draw the next repeat: from the block that was begun, else from a new one."""
        if not entry.rates:
            return None
        waiting = self._drawn.setdefault(entry.config, [])
        if not waiting:
            start = int(self._generator.integers(len(entry.rates)))
            waiting += [entry.rates[(start + step) % len(entry.rates)] for step in range(self._block)]
        rate = waiting.pop(0)
        factor = math.exp(self._generator.normal(0.0, self._noise)) if self._noise else 1.0
        return None if rate is None else rate * factor

    def _measurement(self, request: TrialRequest, entry: RecordedConfig, rate: float) -> Measurement:
        batch = request.config.batch_size
        seconds = request.time_cap_s / _WINDOWS
        samples = max(1, round(rate * seconds))
        window = Window(seconds=samples / rate, samples=samples, batches=max(1, samples // batch), wait_s=0.0)
        return Measurement(
            samples_per_s=rate,
            steady=Interval(mean=rate, low=rate, high=rate),
            windows=(window,) * _WINDOWS,
            whole_epochs=False,
            epoch_samples=self._landscape.dataset.length or samples,
            wait_p50_s=0.0,
            wait_p95_s=0.0,
            data_wait_share=0.0,
            stopped="time_cap",
            memory=MemoryUse(
                device_peak_bytes=entry.device_peak_bytes,
                device_limit_bytes=self._landscape.limit_bytes,
            ),
            seed=request.workload.seed,
        )


def make_landscape(
    rates: Mapping[LoaderConfig, Iterable[float | None] | Failure],
    *,
    machine: MachineFacts,
    dataset: DatasetFacts,
    name: str = "made",
) -> Landscape:
    """Make a landscape from rates, or a failure, for each configuration."""
    entries = (
        RecordedConfig(config=config, failure=found)
        if isinstance(found, Failure)
        else RecordedConfig(config=config, rates=tuple(found))
        for config, found in rates.items()
    )
    return Landscape(name=name, machine=machine, dataset=dataset, entries=tuple(entries))


def _recorded(config: LoaderConfig, records: list[TrialRecord]) -> RecordedConfig:
    measured = [record.measurement for record in records if record.measurement is not None]
    if not measured:
        return RecordedConfig(config=config, failure=records[0].failure, wall_s=records[0].wall_s)
    peaks = [found.memory.device_peak_bytes for found in measured if found.memory.device_peak_bytes is not None]
    return RecordedConfig(
        config=config,
        rates=tuple(record.measurement.samples_per_s if record.measurement else None for record in records),
        device_peak_bytes=max(peaks, default=None),
        wall_s=sum(record.wall_s for record in records) / len(records),
    )
