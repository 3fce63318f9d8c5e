"""What the registry gives back apart from spec values, and how values become columns."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from autotune.spec import AccessToken, DatasetFacts, Decision, LoaderConfig, MachineFacts, TrialRecord

CONFIG_FIELDS = (
    "batch_size",
    "num_workers",
    "prefetch_factor",
    "pin_memory",
    "persistent_workers",
    "cache",
    "cache_fraction",
    "archive",
    "stored",
    "decoder",
    "order",
)
"""Fields of a configuration that are columns of the trial records; a test compares them with `LoaderConfig`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """Something that a tracker is yet to be told.

    Attributes:
        topic: Which tracker.
        key: Unique within the topic.
        body: JSON text.
        attempts: How often telling failed.
        message: What the last failure said.
    """

    topic: str
    key: str
    body: str
    attempts: int = 0
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A decision as far as it takes to choose among many, read from columns alone.

    Attributes:
        key: Key of the decision.
        study: Name of the study.
        outcome: What the study came to.
        sound: Whether its figures make sense.
        consumer: Kind of the consumer.
        loader_class: Dotted path of the class that loaded; None is torch's DataLoader.
        type_name: Class of the dataset.
        structure: Sample structure of the dataset.
        length: Its length.
        machine_class: Class of the machine.
        versions: Versions there.
        decided_us: Time of the decision in microseconds since 1970.
    """

    key: str
    study: str
    outcome: str
    sound: bool
    consumer: str
    loader_class: str | None
    type_name: str
    structure: str
    length: int | None
    machine_class: str
    versions: Mapping[str, str]
    decided_us: int

    @classmethod
    def of(cls, decision: Decision) -> Candidate:
        """Give the candidate that stands for a decision."""
        return cls(
            key=decision.key,
            study=decision.study,
            outcome=decision.outcome,
            sound=is_sound(decision),
            consumer=decision.workload.consumer.kind,
            loader_class=decision.workload.loader_class,
            type_name=decision.dataset.type_name,
            structure=decision.dataset.structure,
            length=decision.dataset.length,
            machine_class=decision.machine.machine_class,
            versions=decision.machine.versions,
            decided_us=microseconds(decision.decided_at),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measured configuration: what it was and how fast.

    Attributes:
        config: The configuration, canonical.
        samples_per_s: Its score.
        phase: Which part of the study measured it.
        versions: Versions there.
    """

    config: LoaderConfig
    samples_per_s: float
    phase: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What the service looks at again and again: whether anything changed, and whom it may answer.

    Attributes:
        newest_event: Number of the newest event of any decision.
        changed: Of each class of dataset with newer events than were known, the number of the newest.
        tokens: All tokens by the SHA-256 of their text, expired and revoked ones included.
    """

    newest_event: int
    changed: Mapping[str, int]
    tokens: Mapping[str, AccessToken]


def microseconds(time: datetime) -> int:
    """Give a time as microseconds since 1970, exactly; a time without a zone is taken as UTC."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def time_of(microseconds: int) -> datetime:
    """Give the time in UTC of so many microseconds since 1970."""
    return _EPOCH + microseconds * _MICROSECOND


def is_sound(decision: Decision) -> bool:
    """Say whether a decision's figures make sense: rates above zero, an interval in order, a gain that is one."""
    rates = (decision.samples_per_s, decision.default_samples_per_s)
    if any(rate is not None and not (math.isfinite(rate) and rate > 0) for rate in rates):
        return False
    ratio = decision.ratio
    if ratio is None:
        return True
    ordered = all(math.isfinite(end) for end in (ratio.low, ratio.high)) and 0 < ratio.low <= ratio.mean <= ratio.high
    claimed = decision.outcome == "gain" and decision.decided_by == "autotune"
    return ordered and (ratio.low > 1 or not claimed)


def major_versions(versions: Mapping[str, str]) -> dict[str, str]:
    """Give the first component of each version: libraries with other ones do not answer for each other."""
    return {name: version.partition(".")[0] for name, version in sorted(versions.items())}


def machine_columns(machine: MachineFacts) -> dict[str, Any]:
    """Give the columns of a machine."""
    return {
        "digest": machine.digest(),
        "machine_class": machine.machine_class,
        "host": machine.host,
        "body": machine.to_json(),
    }


def dataset_columns(dataset: DatasetFacts) -> dict[str, Any]:
    """Give the columns of a dataset."""
    return {
        "digest": dataset.digest(),
        "type_name": dataset.type_name,
        "structure": dataset.structure,
        "length": dataset.length,
        "body": dataset.to_json(),
    }


def trial_columns(record: TrialRecord) -> dict[str, Any]:
    """Give the columns of a trial record."""
    return {
        "key": record.key,
        "study": record.study,
        "number": record.number,
        "phase": record.phase,
        "workload_digest": record.workload.digest(),
        "consumer": record.workload.consumer.kind,
        "page_cache": record.workload.page_cache,
        "machine_class": record.machine.machine_class if record.machine else None,
        "machine_digest": record.machine.digest() if record.machine else None,
        "dataset_digest": record.dataset.digest() if record.dataset else None,
        "started_us": microseconds(record.started_at),
        "samples_per_s": record.measurement.samples_per_s if record.measurement else None,
        "failure": record.failure.kind if record.failure else None,
        **{name: getattr(record.config, name) for name in CONFIG_FIELDS},
        "config": record.config.to_json(),
        "body": record.to_json(),
    }


def decision_columns(decision: Decision) -> dict[str, Any]:
    """Give the columns of a decision."""
    candidate = Candidate.of(decision)
    columns = {name: getattr(candidate, name) for name in Candidate.__slots__}
    return {
        **columns,
        "versions": json.dumps(dict(candidate.versions), sort_keys=True),
        "machine_digest": decision.machine.digest(),
        "dataset_digest": decision.dataset.digest(),
        "body": decision.to_json(),
    }


def group_digest(candidate: Candidate) -> str:
    """Give the key of the group within which only the newest decision counts."""
    group = [
        candidate.study,
        candidate.type_name,
        candidate.structure,
        candidate.length,
        candidate.machine_class,
        candidate.consumer,
        candidate.loader_class,
        major_versions(candidate.versions),
    ]
    return hashlib.sha256(json.dumps(group).encode()).hexdigest()[:32]
