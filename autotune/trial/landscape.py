"""`Landscape`: rates of every configuration of one study, recorded in repeated interleaved runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Self

from pydantic import Field

from autotune.errors import SpecError
from autotune.spec import (
    DatasetFacts,
    Failure,
    Inspection,
    LoaderConfig,
    MachineFacts,
    Measurement,
    Profile,
    SpaceSpec,
    TrialRecord,
    Value,
)
from autotune.spec.base import SCHEMA_VERSION


class RecordedConfig(Value):
    """What was recorded of one configuration.

    Attributes:
        config: The configuration, canonical.
        rates: Rate of each repeat in samples/s; a repeat that gave no sensible rate is None.
        places: Running number of each repeat within the whole recording, as drift and bursts of a
            machine hit neighbours in time; empty where that is not known.
        failure: What it came to instead of rates.
        example: Measurement of one repeat, its windows left out: memory, phases, archive, waiting.
        wall_s: Wall time of one trial, archive builds left out.
    """

    config: LoaderConfig
    rates: tuple[float | None, ...] = ()
    places: tuple[int, ...] = ()
    failure: Failure | None = None
    example: Measurement | None = None
    wall_s: float = Field(default=3.0, ge=0)

    @cached_property
    def truth(self) -> float | None:
        """Geometric mean of the sensible rates; None without any."""
        logs = [math.log(rate) for rate in self.rates if rate is not None and is_rate(rate)]
        return math.exp(fmean(logs)) if logs else None


class Landscape(Value):
    """Recorded rates over a space of configurations; its JSON form is the file format.

    Attributes:
        name: What was recorded, for people to read.
        inspection: Dataset and machine of the recording.
        space: Narrowing of the space that was recorded.
        limit_bytes: Limit of device memory.
        time_cap_s: Longest time in windows of one run.
        recorded_at: When; None for one that was made.
        profile: What a probe found there; None where none was run.
        entries: The configurations.
    """

    name: str
    inspection: Inspection
    space: SpaceSpec = SpaceSpec()
    limit_bytes: int | None = None
    time_cap_s: float | None = None
    recorded_at: datetime | None = None
    profile: Profile | None = None
    entries: tuple[RecordedConfig, ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a landscape file.

        Raises:
            SpecError: It is no landscape.
        """
        return cls.from_json(path.read_bytes())

    def save(self, path: Path) -> None:
        """Write a landscape file, one line for each configuration, as version control likes it."""
        head = self.model_dump(mode="json", exclude_defaults=True, exclude={"entries"})
        head = {"schema_version": SCHEMA_VERSION, **head}
        lines = [_compact(entry.model_dump(mode="json", exclude_defaults=True)) for entry in self.entries]
        text = json.dumps(head, indent=1, sort_keys=True, allow_nan=False).removesuffix("\n}")
        path.write_text(f'{text},\n "entries": [\n' + ",\n".join(lines) + "\n ]\n}\n")

    @classmethod
    def from_records(
        cls,
        name: str,
        records: Iterable[TrialRecord],
        *,
        inspection: Inspection,
        space: SpaceSpec | None = None,
        limit_bytes: int | None = None,
        time_cap_s: float | None = None,
    ) -> Self:
        """Put records of repeated trials together, by configuration; their order is the order in time.

        Raises:
            SpecError: There is no record.
        """
        entries: dict[LoaderConfig, list[tuple[int, TrialRecord]]] = {}
        for place, record in enumerate(records):
            entries.setdefault(record.config, []).append((place, record))
        if not entries:
            raise SpecError("a landscape needs records, got none")
        first = next(iter(entries.values()))[0][1]
        return cls(
            name=name,
            inspection=inspection,
            space=space or SpaceSpec(),
            limit_bytes=limit_bytes,
            time_cap_s=time_cap_s,
            recorded_at=first.started_at,
            entries=tuple(_recorded(config, found) for config, found in entries.items()),
        )

    @property
    def best(self) -> RecordedConfig:
        """The configuration with the highest true rate."""
        return max(self.entries, key=lambda entry: entry.truth or 0.0)

    def truth(self, config: LoaderConfig) -> float | None:
        """Give the true rate of a configuration; None where it failed or is unknown."""
        entry = self.entry(config)
        return None if entry is None else entry.truth

    def entry(self, config: LoaderConfig) -> RecordedConfig | None:
        """Give what was recorded of a configuration in any spelling; None for nothing."""
        return self._by_config.get(config.canonical(has_accelerator=self.inspection.machine.has_accelerator))

    @cached_property
    def _by_config(self) -> dict[LoaderConfig, RecordedConfig]:
        accelerated = self.inspection.machine.has_accelerator
        return {entry.config.canonical(has_accelerator=accelerated): entry for entry in self.entries}

    @cached_property
    def residuals(self) -> tuple[float, ...]:
        """Log ratio of each repeat to its configuration's true rate, in the order in time.

        With n repeats the mean takes one degree of freedom, so that each is widened by the root of n / (n - 1).
        """
        found: list[tuple[int, float]] = []
        for entry in self.entries:
            repeats = zip(_places(entry), entry.rates, strict=True)
            logs = [(place, math.log(rate)) for place, rate in repeats if rate is not None and is_rate(rate)]
            if len(logs) < 2:
                continue
            mean = fmean(log for _, log in logs)
            widened = math.sqrt(len(logs) / (len(logs) - 1))
            found += [(place, (log - mean) * widened) for place, log in logs]
        return tuple(residual for _, residual in sorted(found))

    @cached_property
    def spread(self) -> float:
        """Standard deviation of the log rate from run to run, pooled over all configurations; 0 where unknown."""
        return math.sqrt(fmean(residual**2 for residual in self.residuals)) if self.residuals else 0.0

    def transformed(self, name: str, rates: Mapping[LoaderConfig, float]) -> Landscape:
        """Give a landscape whose true rates are others: every repeat of a configuration is scaled alike."""
        entries = []
        for entry in self.entries:
            truth, wanted = entry.truth, rates.get(entry.config)
            factor = wanted / truth if truth and wanted else 1.0
            scaled = tuple(None if rate is None else rate * factor for rate in entry.rates)
            entries.append(entry.replace(rates=scaled))
        return self.replace(name=f"{self.name}, {name}", entries=tuple(entries))


def flat(landscape: Landscape) -> Landscape:
    """Give a landscape in which every configuration is equally fast: nothing is to be gained there."""
    mean = math.exp(fmean(math.log(entry.truth) for entry in landscape.entries if entry.truth))
    return landscape.transformed("flat", {entry.config: mean for entry in landscape.entries if entry.truth})


def tied(landscape: Landscape, step: float = 0.05) -> Landscape:
    """Give a landscape with many exact ties: true rates rounded down to steps of a share of the best one."""
    best = landscape.best.truth or 1.0
    rates = {
        entry.config: best * math.exp(math.floor(math.log(entry.truth / best) / step) * step)
        for entry in landscape.entries
        if entry.truth
    }
    return landscape.transformed("ties", rates)


def inverted(landscape: Landscape) -> Landscape:
    """Give a landscape with the same rates in the opposite order: the fastest configuration is the slowest there."""
    ranked = sorted((entry for entry in landscape.entries if entry.truth), key=lambda entry: entry.truth or 0.0)
    rates = [entry.truth or 0.0 for entry in reversed(ranked)]
    return landscape.transformed("inverted", dict(zip((entry.config for entry in ranked), rates, strict=True)))


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
    inspection = Inspection(
        dataset=dataset, machine=machine, sample_structure=dataset.structure, sample_bytes=0, largest_sample_bytes=0
    )
    return Landscape(name=name, inspection=inspection, entries=tuple(entries))


def is_rate(rate: float | None) -> bool:
    """Tell whether a number can be a rate."""
    return rate is not None and math.isfinite(rate) and rate > 0


def _places(entry: RecordedConfig) -> Sequence[int]:
    return entry.places or range(len(entry.rates))


def _recorded(config: LoaderConfig, found: list[tuple[int, TrialRecord]]) -> RecordedConfig:
    places, records = zip(*found, strict=True)
    measured = [record.measurement for record in records if record.measurement is not None]
    built_s = sum(one.phases.archive_build_s for one in measured)
    wall_s = max(0.0, sum(record.wall_s for record in records) - built_s) / len(records)
    if not measured:
        return RecordedConfig(config=config, failure=records[0].failure, wall_s=wall_s)
    middle = sorted(measured, key=lambda one: one.samples_per_s)[len(measured) // 2]
    return RecordedConfig(
        config=config,
        rates=tuple(record.measurement.samples_per_s if record.measurement else None for record in records),
        places=tuple(places),
        example=middle.replace(windows=()),
        wall_s=wall_s,
    )


def _compact(document: object) -> str:
    return "  " + json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
