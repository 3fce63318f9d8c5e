"""Frozen values with one JSON form: everything that is stored or sent."""

from autotune.spec.access_token import AccessToken, Scope
from autotune.spec.base import SCHEMA_VERSION, Value
from autotune.spec.config import STORED_FORMS, LoaderConfig
from autotune.spec.deployment import Action, DecisionEvent, Deployment, WaitingDecision
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
from autotune.spec.lease import Lease
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
from autotune.spec.nightly import NightlyReport, NightOutcome, Pruned, StudyNight, Task
from autotune.spec.profile import Bottleneck, Bound, Headroom, Line, Profile
from autotune.spec.queued_study import QueuedStudy, QueueState
from autotune.spec.record import Decision, Outcome, TrialRecord, TrialRequest
from autotune.spec.sharing import OrderAnswer, SharedStudy, StudyMachine, TrialClaim, TrialOrder
from autotune.spec.smaller import SmallerMachine
from autotune.spec.study import Budget, SpaceSpec, StudySpec
from autotune.spec.workload import Consumer, DatasetSource, MemoryLimit, Workload

__all__ = [
    "SCHEMA_VERSION",
    "STORED_FORMS",
    "AccessToken",
    "Action",
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
    "DecisionEvent",
    "Deployment",
    "Failure",
    "FailureKind",
    "Headroom",
    "Inspection",
    "Interval",
    "Lease",
    "Line",
    "LoaderConfig",
    "MachineFacts",
    "Measurement",
    "MemoryLimit",
    "MemorySummary",
    "MemoryUse",
    "NightOutcome",
    "NightlyReport",
    "OrderAnswer",
    "Outcome",
    "PageCacheState",
    "PhaseStarted",
    "Phases",
    "Preparing",
    "Profile",
    "Pruned",
    "QueueState",
    "QueuedStudy",
    "Rates",
    "Scope",
    "SharedStudy",
    "SmallerMachine",
    "SpaceSpec",
    "StudyEnded",
    "StudyListener",
    "StudyMachine",
    "StudyNight",
    "StudySpec",
    "StudyStarted",
    "StudySummary",
    "Task",
    "TrialClaim",
    "TrialFinished",
    "TrialOrder",
    "TrialRecord",
    "TrialRequest",
    "Value",
    "WaitingDecision",
    "Window",
    "Workload",
]
