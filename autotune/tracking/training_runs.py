"""A training told to MLflow as it goes: one run, never an obstacle."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from autotune.tracking.breaker import Breaker
from autotune.tracking.experiments import experiment_id, local_artifacts
from autotune.tracking.mlflow_client import is_refusal, mlflow_installed, open_client, quiet_mlflow
from autotune.tracking.mlflow_listener import REST_S, SLOW_S
from autotune.tracking.mlflow_values import ROLE, RUN_KEY, TEXT_MAX
from autotune.tracking.run_files import RunFiles

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_LOG = logging.getLogger(__name__)

_BATCH = 100
"""Parameters that MLflow takes at once."""

Telling = Callable[["MlflowClient", str], None]
"""Tells something to the run with an id."""


class TrainingRun:
    """Tells MLflow of one training. Nothing here raises, whatever MLflow does.

    What cannot be sent waits, in order, for the next call after a rest; what MLflow refuses is left out, as are files
    that cannot be kept, which hold nothing else up. All of it is logged. Values bear the time at which they came.

    Args:
        tracking_uri: MLflow's tracking URI.
        experiment: Name of the experiment.
        artifact_root: Folder of artifacts, used where no server keeps them; None is MLflow's own choice.
        run_name: Name of the run; None lets MLflow choose.
        rest_s: How long MLflow is left alone after a failure.
        clock: Monotonic seconds.
        now: Seconds of UTC since 1970.

    Attributes:
        run_id: MLflow's id of the run; None until it was created.
    """

    def __init__(
        self,
        *,
        tracking_uri: str,
        experiment: str,
        artifact_root: Path | None = None,
        run_name: str | None = None,
        rest_s: float = REST_S,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.run_id: str | None = None
        self._tracking_uri = tracking_uri
        self._experiment = experiment
        self._artifact_root = local_artifacts(tracking_uri, artifact_root)
        self._run_name = run_name
        self._clock = clock
        self._now = now
        self._breaker = Breaker(rest_s, clock)
        self._client: MlflowClient | None = None
        self._key = uuid4().hex
        self._begun_ms = 0
        self._known = False
        self._waiting: deque[Telling] = deque()
        self._files = RunFiles(rest_s, clock)
        self._told_absent = False

    @property
    def waiting(self) -> int:
        """How much is yet to be sent."""
        return len(self._waiting) + len(self._files)

    def continue_run(self, run_id: str | None) -> None:
        """Tell the run of an earlier part of the training from now on, where it is still there."""
        self.run_id = run_id
        self._known = False

    def begin(self, *, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Begin the run, or go on with it.

        Args:
            params: What does not change; parameters that the run has stay as they are, as MLflow wants it.
            tags: What people filter by.
        """
        self._begun_ms = self._now_ms()
        note = _noting(params, {ROLE: "training", **tags})

        def tell(client: MlflowClient, run_id: str) -> None:
            client.update_run(run_id, status="RUNNING")
            note(client, run_id)

        self._tell(tell)

    def note(self, *, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Add what became known while the run goes on.

        Args:
            params: Parameters; those that the run has stay as they are.
            tags: Tags, in place of those of the same names.
        """
        self._tell(_noting(params, tags))

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Log figures; those that are NaN or infinite are left out, as not every store takes them."""
        at_ms = self._now_ms()
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}

        def tell(client: MlflowClient, run_id: str) -> None:
            from mlflow.entities import Metric

            client.log_batch(run_id, metrics=[Metric(name, value, at_ms, step) for name, value in finite.items()])

        self._tell(tell)

    def log_file(self, path: Path, *, folder: str | None = None) -> None:
        """Keep a file with the run.

        Args:
            path: The file.
            folder: Folder among the run's artifacts.
        """
        self._files.add(path, folder)
        self._send_all()

    def finish(self, status: str = "FINISHED") -> None:
        """End the run as `FINISHED`, `FAILED` or `KILLED`, try once more to send everything, and warn of the rest.

        The end is told even where something before it cannot be.
        """
        at_ms = self._now_ms()

        def end(client: MlflowClient, run_id: str) -> None:
            client.set_terminated(run_id, status=status, end_time=at_ms)

        self._breaker.reset()
        self._tell(end, last=True)
        if len(self._waiting) > 1 and self.run_id is not None and self._ready():
            self._tell_first(end)
        if self.waiting and not self._told_absent:
            _LOG.warning(
                "%d entries of the training could not be sent to MLflow at %s", self.waiting, self._tracking_uri
            )

    def _tell(self, telling: Telling, *, last: bool = False) -> None:
        """Send what waits, and this at last, until something fails."""
        self._waiting.append(telling)
        self._send_all(last=last)

    def _tell_first(self, telling: Telling) -> None:
        """Send something before what waits with it and fails, and the files."""
        self._waiting.remove(telling)
        self._waiting.appendleft(telling)
        self._breaker.reset()
        with quiet_mlflow():
            self._send(telling, last=True)
            self._send_files(last=True)

    def _send_all(self, *, last: bool = False) -> None:
        """Send what waits, and files behind it, until something fails.

        Args:
            last: Whether nobody will ask again, so that a slow call that succeeds ends nothing.
        """
        if self._breaker.resting or not self._ready():
            return
        with quiet_mlflow():
            while self._waiting and not self._breaker.resting:
                self._send(self._waiting[0], last=last)
            self._send_files(last=last)

    def _send(self, telling: Telling, *, last: bool) -> None:
        try:
            client, run_id = self._opened()
            started_s = self._clock()  # not counting imports and a new schema, which say nothing of the server
            telling(client, run_id)
        except Exception as error:  # noqa: BLE001  (whatever MLflow raises, tracking is best effort)
            if is_refusal(error):
                self._waiting.popleft()
                _LOG.warning("MLflow refused a part of the training, which is left out: %s", _first_line(error))
            else:
                self._rest(error)
            return
        self._waiting.popleft()
        if not last and self._clock() - started_s > SLOW_S:
            self._breaker.trip()

    def _send_files(self, *, last: bool) -> None:
        if not len(self._files) or self._breaker.resting:
            return
        try:
            client, run_id = self._opened()
        except Exception as error:  # noqa: BLE001  (as above)
            self._rest(error)
            return
        self._files.send(client, run_id, last=last)

    def _rest(self, error: Exception) -> None:
        self._breaker.trip()
        _LOG.info("MLflow at %s failed and is left alone for a while: %s", self._tracking_uri, _first_line(error))

    def _opened(self) -> tuple[MlflowClient, str]:
        """Give the client and the id of the run, which is created on first use."""
        client = self._client = self._client or open_client(self._tracking_uri)
        if self.run_id is not None and not self._known and not _is_active(client, self.run_id):
            _LOG.info("the run %s is not in MLflow at %s; a new one is begun", self.run_id, self._tracking_uri)
            self.run_id = None
        self.run_id = self.run_id or self._created(client)
        self._known = True
        return client, self.run_id

    def _created(self, client: MlflowClient) -> str:
        """Create the run, unless a call that seemed to fail has done so."""
        experiment = experiment_id(client, self._experiment, self._artifact_root)
        found = client.search_runs([experiment], filter_string=f"tags.`{RUN_KEY}` = '{self._key}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {RUN_KEY: self._key, ROLE: "training", "mlflow.source.name": "autotune"}
        run = client.create_run(experiment, start_time=self._begun_ms, tags=tags, run_name=self._run_name)
        return str(run.info.run_id)

    def _ready(self) -> bool:
        if mlflow_installed():
            return True
        if not self._told_absent:
            self._told_absent = True
            _LOG.warning("MLflow is not installed, so the training is not told to it. Install it: pip install mlflow")
        return False

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


def _noting(params: Mapping[str, str], tags: Mapping[str, str]) -> Telling:
    """Give what tells parameters that a run has not yet, and tags."""
    cut = {name: value[:TEXT_MAX] for name, value in params.items()}
    named = {name: value[:TEXT_MAX] for name, value in tags.items()}

    def tell(client: MlflowClient, run_id: str) -> None:
        from mlflow.entities import Param, RunTag

        known = client.get_run(run_id).data.params
        missing = [Param(name, value) for name, value in cut.items() if name not in known]
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in named.items()])
        for start in range(0, len(missing), _BATCH):
            client.log_batch(run_id, params=missing[start : start + _BATCH])

    return tell


def _is_active(client: MlflowClient, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]


__all__ = ["TrainingRun"]
