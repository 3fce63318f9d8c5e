"""Requests, records and decisions: what travels between study, trial, registry and resolver."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, Self
from uuid import uuid4

from pydantic import Field, model_validator

from autotune.spec.base import Value
from autotune.spec.config import LoaderConfig
from autotune.spec.facts import DatasetFacts, MachineFacts
from autotune.spec.measurement import Failure, Interval, Measurement
from autotune.spec.profile import Bottleneck, Headroom
from autotune.spec.smaller import SmallerMachine
from autotune.spec.workload import Workload

Phase = Literal["probe", "search", "race", "confirm", "verify", "smaller", "measure", "compare"]


def new_key() -> str:
    """Draw the key of a trial record: 32 hexadecimal digits."""
    return uuid4().hex


class TrialRequest(Value):
    """One configuration to be measured in one fresh process.

    Attributes:
        key: Key of the record that comes back.
        study: Name of the study.
        number: Optuna's trial number; None outside the search.
        phase: Which part of the study asks.
        workload: What is measured.
        config: The configuration, canonical.
        payload_path: cloudpickle file with the objects that have no dotted path; None without.
        archive_root: Folder that archives are built in and opened from.
        cache_root: Folder of disk caches.
        archive_limit_bytes: Most bytes of all archives together; None is no limit.
        cache_limit_bytes: Most bytes of all disk caches together; None is no limit.
        kept_archives: Archives that are never removed for room, as `<fingerprint>/<format>-<form>`.
        time_cap_s: Longest time spent in timed windows.
        timeout_s: Longest time of the whole process, archive build included.
        incumbent_samples_per_s: Best rate so far, for the futility rule; None turns it off.
        batch_bytes: Bytes of one batch, from the inspection, to predict shared memory; None is unknown.
        probe_batch_sizes: Batch sizes that a probe looks at; none are the configuration's alone.
        cpus: CPUs that the process and all of its children get together; None is all that there are.
    """

    key: str = Field(default_factory=new_key)
    study: str
    number: int | None = None
    phase: Phase = "search"
    workload: Workload
    config: LoaderConfig
    payload_path: str | None = None
    archive_root: str
    cache_root: str
    archive_limit_bytes: int | None = None
    cache_limit_bytes: int | None = None
    kept_archives: tuple[str, ...] = ()
    time_cap_s: float = Field(default=2.0, gt=0)
    timeout_s: float = Field(default=300.0, gt=0)
    incumbent_samples_per_s: float | None = None
    batch_bytes: int | None = None
    probe_batch_sizes: tuple[int, ...] = ()
    cpus: int | None = Field(default=None, ge=1)


class TrialRecord(Value):
    """What became of one request: a measurement or a failure, never both.

    Attributes:
        key: Unique key; everything downstream is idempotent by it.
        study: Name of the study.
        number: Optuna's trial number; None outside the search.
        phase: Which part of the study asked.
        workload: What was measured.
        config: The configuration, canonical.
        measurement: The result; None when it failed.
        failure: The failure; None when it was measured.
        machine: The machine; None where the process died before telling.
        dataset: The dataset; None likewise.
        started_at: Start in UTC.
        wall_s: Wall time of the whole trial, process start and end included.
        attempts: Processes that it took, retries included.
    """

    key: str
    study: str
    number: int | None = None
    phase: Phase = "search"
    workload: Workload
    config: LoaderConfig
    measurement: Measurement | None = None
    failure: Failure | None = None
    machine: MachineFacts | None = None
    dataset: DatasetFacts | None = None
    started_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    wall_s: float = Field(default=0.0, ge=0)
    attempts: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check_outcome(self) -> Self:
        if (self.measurement is None) == (self.failure is None):
            raise ValueError("a record has a measurement or a failure, exactly one of them")
        return self


Outcome = Literal["gain", "nothing_to_gain", "undecided", "nothing_feasible"]


class Decision(Value):
    """What a study came to: the configuration that is deployed, and on what evidence.

    Attributes:
        key: Unique key.
        study: Name of the study.
        outcome: `gain` promotes `best`; `nothing_to_gain` and `undecided` keep what is deployed, else the default.
        config: The configuration that this decision deploys.
        default: The PyTorch default at the same batch size.
        samples_per_s: Rate of `config` over the confirm runs of `machine`; of all machines where it made none.
        default_samples_per_s: Rate of `default` over the same runs.
        ratio: Rate of `config` over that of `default`, paired, with its 95 % interval.
        pairs: Pairs that the interval rests on.
        batch_size_gain: Rate of the winner over its own at batch size 32; None where not measured.
        workload: What was measured.
        machine: Where.
        other_hosts: Names of other machines of its class that measured too.
        dataset: On what.
        fingerprint: Source fingerprint of the dataset, which names its archives; None where none can be had.
        peak_bytes: Peak of device memory of `config`.
        limit_bytes: The limit.
        headroom: Distance of `config` from what any loader could reach.
        resolution_share: Smallest difference that the confirm runs could tell, as a share; None with too few.
        bottlenecks: What limits `config` and the default, by the probe; empty without one.
        smaller: The smallest machine that keeps the consumer fed; None where only loading was measured, or nothing
            that tells.
        notes: What the phases came to, a sentence each.
        why: One or two sentences for people.
        decided_by: A person's name, or `autotune`.
        decided_at: Time in UTC.
    """

    key: str = Field(default_factory=new_key)
    study: str
    outcome: Outcome
    config: LoaderConfig
    default: LoaderConfig
    samples_per_s: float | None = None
    default_samples_per_s: float | None = None
    ratio: Interval | None = None
    pairs: int = Field(default=0, ge=0)
    batch_size_gain: float | None = None
    workload: Workload
    machine: MachineFacts
    other_hosts: tuple[str, ...] = ()
    dataset: DatasetFacts
    fingerprint: str | None = None
    peak_bytes: int | None = None
    limit_bytes: int | None = None
    headroom: Headroom = Headroom()
    resolution_share: float | None = None
    bottlenecks: tuple[Bottleneck, ...] = ()
    smaller: SmallerMachine | None = None
    notes: tuple[str, ...] = ()
    why: str
    decided_by: str = "autotune"
    decided_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
