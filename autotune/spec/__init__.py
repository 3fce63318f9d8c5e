"""Frozen values with one JSON form: everything that is stored or sent."""

from autotune.spec.base import SCHEMA_VERSION, Value
from autotune.spec.config import STORED_FORMS, LoaderConfig
from autotune.spec.events import (
    Counts,
    MemorySummary,
    PhaseStarted,
    Preparing,
    Rates,
    StudyEnded,
    StudyListener,
    StudyStarted,
    StudySummary,
    TrialFinished,
)
from autotune.spec.facts import DatasetFacts, Inspection, MachineFacts
from autotune.spec.measurement import (
    ArchiveUse,
    CacheUse,
    Failure,
    FailureKind,
    Interval,
    Measurement,
    MemoryUse,
    PageCacheState,
    Phases,
    Window,
)
from autotune.spec.profile import Bottleneck, Bound, Headroom, Line, Profile
from autotune.spec.record import Decision, Outcome, TrialRecord, TrialRequest
from autotune.spec.study import Budget, SpaceSpec, StudySpec
from autotune.spec.workload import Consumer, DatasetSource, MemoryLimit, Workload

__all__ = [
    "SCHEMA_VERSION",
    "STORED_FORMS",
    "ArchiveUse",
    "Bottleneck",
    "Bound",
    "Budget",
    "CacheUse",
    "Consumer",
    "Counts",
    "DatasetFacts",
    "DatasetSource",
    "Decision",
    "Failure",
    "FailureKind",
    "Headroom",
    "Inspection",
    "Interval",
    "Line",
    "LoaderConfig",
    "MachineFacts",
    "Measurement",
    "MemoryLimit",
    "MemorySummary",
    "MemoryUse",
    "Outcome",
    "PageCacheState",
    "PhaseStarted",
    "Phases",
    "Preparing",
    "Profile",
    "Rates",
    "SpaceSpec",
    "StudyEnded",
    "StudyListener",
    "StudySpec",
    "StudyStarted",
    "StudySummary",
    "TrialFinished",
    "TrialRecord",
    "TrialRequest",
    "Value",
    "Window",
    "Workload",
]
