"""The study's MLflow listener: events go to the outbox, and from there to MLflow between trials."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

from autotune.spec import (
    Decision,
    Inspection,
    PhaseStarted,
    Preparing,
    Profile,
    StudyEnded,
    StudyStarted,
    TrialFinished,
    Value,
)
from autotune.tracking.breaker import Breaker
from autotune.tracking.mlflow_client import is_refusal, mlflow_installed, open_client, quiet_mlflow
from autotune.tracking.mlflow_runs import RunWriter
from autotune.tracking.outbox import Outbox, PendingRow, Telling, TellingKind
from autotune.tracking.report.evidence import EvidenceStore

_LOG = logging.getLogger(__name__)

TOPIC = "mlflow"
DRAIN_S = 2.0
"""Time that one drain between trials may take; a row that was begun is finished."""
FINISH_S = 30.0
"""Time that the last drain may take."""
REST_S = 30.0
"""How long MLflow is left alone after it failed or was slow."""
SLOW_S = 5.0
"""A row that takes longer counts as a failure of the server, though it was told."""
_PAGE = 50


def default_tracking_uri(home: Path) -> str:
    """Give the tracking URI that is used where none is set: a SQLite file of its own in the home folder."""
    return f"sqlite:///{home.absolute() / 'mlflow.db'}"


class MlflowListener:
    """Tells MLflow how a study goes: nothing is lost while it is down, and nothing is told twice.

    Every event becomes a row of the outbox first. Rows are sent between trials, never while a window is
    timed; what cannot be sent stays in the outbox for the next drain, of this process or a later one.

    Args:
        outbox: Keeps rows until they were told.
        tracking_uri: MLflow's tracking URI.
        artifact_root: Folder of artifacts, used where no server keeps them; None is MLflow's own choice.
        evidence: Where the report finds what it rests on; None leaves the report out.
        address: Address of the service whose pages are linked to; None links to nothing.
        drain_s: Time for a drain after each trial; 0 leaves draining to the caller.
        rest_s: How long MLflow is left alone after a failure.
        clock: Monotonic seconds.
        now: Seconds of UTC since 1970.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        tracking_uri: str,
        artifact_root: Path | None = None,
        evidence: EvidenceStore | None = None,
        address: str | None = None,
        drain_s: float = DRAIN_S,
        rest_s: float = REST_S,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._tracking_uri = tracking_uri
        self._artifact_root = artifact_root
        self._evidence = evidence
        self._address = address
        self._drain_s = drain_s
        self._clock = clock
        self._now = now
        self._breaker = Breaker(rest_s, clock)
        self._writer: RunWriter | None = None
        self._refused: set[str] = set()
        self._told_absent = False
        self._run_key = ""
        self._study = ""
        self._decision_key = ""

    # Events

    def on_start(self, event: StudyStarted) -> None:
        """Note what is studied."""
        self._run_key, self._study, self._decision_key = event.run_key, event.spec.name, ""
        self._add("start", event)

    def on_preparing(self, event: Preparing) -> None:
        """Leave it out: it is of interest only while it lasts."""

    def on_inspected(self, inspection: Inspection) -> None:
        """Note what was found out about dataset and machine."""
        self._add("inspected", inspection)

    def on_phase(self, event: PhaseStarted) -> None:
        """Note that a phase begins."""
        self._add("phase", event)

    def on_profile(self, profile: Profile) -> None:
        """Note what the probe found."""
        self._add("profile", profile)

    def on_trial(self, event: TrialFinished) -> None:
        """Note a trial, and use the time between trials to send what is pending."""
        self._run_key, self._study = event.run_key, event.record.study
        self._add("trial", event.record, key=event.record.key)
        if self._drain_s > 0:
            self.drain(self._drain_s)

    def on_decision(self, decision: Decision) -> None:
        """Note the decision."""
        self._study, self._decision_key = decision.study, decision.key
        self._add("decision", decision, key=decision.key)

    def on_end(self, event: StudyEnded) -> None:
        """Note the end, and try once more to send everything."""
        self._run_key, self._study = event.run_key, event.summary.study
        if self._evidence is not None and self._decision_key:
            self._add_text("report", self._decision_key)
        self._add("end", event)
        self.finish()

    # Sending

    def warm_up(self) -> None:
        """Import MLflow and create its schema now, while nothing is timed; seconds the first time.

        A failure is no error here: it starts the rest that a failed drain starts.
        """
        if not self._ready():
            return
        with quiet_mlflow():
            try:
                self._open()
            except Exception as error:  # noqa: BLE001  (whatever MLflow raises, tracking is best effort)
                self._fail(error)

    def drain(self, limit_s: float) -> int:
        """Send pending rows until there are none, the time is over, or MLflow fails.

        Args:
            limit_s: Time after which no further row is begun; one is begun in any case.

        Returns:
            How many rows were told.
        """
        if self._breaker.resting or not self._ready():
            return 0
        until = self._clock() + limit_s
        told = 0
        with quiet_mlflow():
            while rows := self._rows():
                for row in rows:
                    told += self._tell(row)
                    if self._breaker.resting or self._clock() >= until:
                        return told
        return told

    def finish(self, limit_s: float = FINISH_S) -> int:
        """Try once more to send everything, after a failure too, and warn of what remains.

        Returns:
            How many rows stay in the outbox.
        """
        self._breaker.reset()
        self._refused.clear()
        self.drain(limit_s)
        left = len(self._outbox.outbox_pending(TOPIC, 10_000))
        if left and not self._told_absent:
            _LOG.warning(
                "%d entries could not be sent to MLflow at %s; they are kept and sent by the next study",
                left, self._tracking_uri,
            )  # fmt: skip
        return left

    def _rows(self) -> list[PendingRow]:
        rows = self._outbox.outbox_pending(TOPIC, _PAGE + len(self._refused))
        return [row for row in rows if row.key not in self._refused]

    def _tell(self, row: PendingRow) -> bool:
        """Send one row; gives whether it was told."""
        try:
            writer = self._open()
            started = self._clock()  # not counting imports and a new schema, which say nothing of the server
            writer.write(Telling.from_json(row.body))
        except Exception as error:  # noqa: BLE001  (whatever MLflow raises, tracking is best effort)
            self._outbox.outbox_failed(TOPIC, row.key, f"{type(error).__name__}: {error}"[:1000])
            if self._writer is not None:
                self._writer.forget()
            if is_refusal(error):
                level = logging.DEBUG if self._refused else logging.WARNING
                self._refused.add(row.key)
                _LOG.log(level, "MLflow refused %s, which is kept in the outbox: %s", row.key, _first_line(error))
            else:
                self._fail(error)
            return False
        self._outbox.outbox_settle(TOPIC, row.key)
        if self._clock() - started > SLOW_S:
            self._breaker.trip()
        return True

    def _fail(self, error: Exception) -> None:
        self._breaker.trip()
        _LOG.info("MLflow at %s failed and is left alone for a while: %s", self._tracking_uri, _first_line(error))

    def _ready(self) -> bool:
        if mlflow_installed():
            return True
        if not self._told_absent:
            self._told_absent = True
            _LOG.warning("MLflow is not installed; what it would be told is kept. Install it: pip install mlflow")
        return False

    def _open(self) -> RunWriter:
        if self._writer is None:
            writer = RunWriter(
                open_client(self._tracking_uri),
                tracking_uri=self._tracking_uri,
                artifact_root=self._artifact_root,
                evidence=self._evidence,
                address=self._address,
            )
            writer.warm_up()
            self._writer = writer
        return self._writer

    # Noting

    def _add(self, kind: TellingKind, value: Value, key: str | None = None) -> None:
        self._add_text(kind, value.to_json(), key)

    def _add_text(self, kind: TellingKind, value: str, key: str | None = None) -> None:
        telling = Telling(
            kind=kind, run_key=self._run_key, study=self._study, at_ms=int(self._now() * 1000), value=value
        )
        # the digest tells a resumed run's second start or end from a replay of the first
        name = key or f"{self._run_key}:{hashlib.sha256(value.encode()).hexdigest()[:16]}"
        self._outbox.outbox_add(f"{kind}:{name}", TOPIC, telling.to_json())


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
