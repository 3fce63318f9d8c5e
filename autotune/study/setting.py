"""`Setting`: everything that the phases of one study share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from autotune.constants import TIME_CAP_MIN_S, TIME_CAP_SHARE
from autotune.space import Space
from autotune.spec import (
    Decision,
    DecisionEvent,
    Inspection,
    LoaderConfig,
    StudyListener,
    StudySpec,
    TrialRecord,
    TrialRequest,
)
from autotune.spec.record import Phase
from autotune.spec.study import Promotion
from autotune.study.limits import limit_bytes
from autotune.trial import TrialPool

_LOG = logging.getLogger(__name__)


class RecordStore(Protocol):
    """Where records and decisions are kept; the truth."""

    def save_record(self, record: TrialRecord) -> None:
        """Keep a record; saving it again changes nothing."""

    def records(self, study: str) -> Sequence[TrialRecord]:
        """Give the records of a study in order of their start."""

    def save_decision(self, decision: Decision, *, promotion: Promotion) -> DecisionEvent | None:
        """Keep a decision, and say what became of it where that is known."""

    def decisions(self, study: str) -> Sequence[Decision]:
        """Give the decisions of a study, newest first."""

    def deployed_decisions(self, study: str) -> Sequence[Decision]:
        """Give the decisions of a study that are deployed, newest first."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One run of one study.

    Attributes:
        run_key: Key of the run; the same after a resume.
        spec: The study.
        inspection: What is known of dataset and machine.
        space: What may be proposed.
        pool: Measures.
        store: Keeps.
        listeners: Are told.
        archive_root: Folder of archives.
        cache_root: Folder of disk caches.
        archive_limit_bytes: Most bytes of all archives together; None is no limit.
        cache_limit_bytes: Most bytes of all disk caches together; None is no limit.
        kept_archives: Archives that are never removed for room, as `<fingerprint>/<format>-<form>`.
        payload_path: cloudpickle file of objects without a dotted path.
        known_since: Records from before this time have to be measured again, as something has changed; None has all
            of them count.
        clock: Monotonic seconds.
    """

    run_key: str
    spec: StudySpec
    inspection: Inspection
    space: Space
    pool: TrialPool
    store: RecordStore
    archive_root: Path
    cache_root: Path
    archive_limit_bytes: int | None = None
    cache_limit_bytes: int | None = None
    kept_archives: tuple[str, ...] = ()
    listeners: Sequence[StudyListener] = ()
    payload_path: Path | None = None
    known_since: datetime | None = None
    clock: Callable[[], float] = field(default=time.monotonic)

    @property
    def memory_limit_bytes(self) -> int:
        """Limit of device memory in bytes."""
        return limit_bytes(self.spec.memory_limit, self.inspection.machine, self.spec.device)

    def time_cap_s(self, phase: Phase) -> float:
        """Give the longest time in windows of one run: that of the study, cut for a short budget."""
        asked_s = self.spec.time_cap_s if phase == "search" else self.spec.confirm_time_cap_s
        return min(asked_s, max(TIME_CAP_MIN_S, TIME_CAP_SHARE * self.spec.budget.time_s))

    def request(
        self,
        config: LoaderConfig,
        *,
        phase: Phase,
        number: int | None = None,
        incumbent: TrialRecord | None = None,
    ) -> TrialRequest:
        """Write the request for one trial."""
        measured = incumbent.measurement if incumbent else None
        return TrialRequest(
            study=self.spec.name,
            number=number,
            phase=phase,
            workload=self.spec.workload,
            config=config,
            payload_path=str(self.payload_path) if self.payload_path else None,
            archive_root=str(self.archive_root),
            cache_root=str(self.cache_root),
            archive_limit_bytes=self.archive_limit_bytes,
            cache_limit_bytes=self.cache_limit_bytes,
            kept_archives=self.kept_archives,
            time_cap_s=self.time_cap_s(phase),
            timeout_s=self.spec.trial_timeout_s,
            incumbent_samples_per_s=measured.samples_per_s if measured else None,
            batch_bytes=config.batch_size * self.inspection.sample_bytes,
        )

    def notify(self, event: str, payload: object) -> None:
        """Tell all listeners."""
        notify(self.listeners, event, payload)


def notify(listeners: Iterable[StudyListener], event: str, payload: object) -> None:
    """Tell listeners; one that raises is logged and skipped, never the study.

    Args:
        listeners: Who is told.
        event: Name of the method.
        payload: Its argument.
    """
    for listener in listeners:
        try:
            getattr(listener, event)(payload)
        except Exception:  # noqa: BLE001  (a listener may be anything, and none may stop a study)
            _LOG.exception("listener %s failed at %s and was skipped", type(listener).__name__, event)
