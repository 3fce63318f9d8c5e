"""Files that are yet to be kept with a run of MLflow, apart from everything else that is told of it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.tracking.breaker import Breaker
from autotune.tracking.mlflow_client import is_refusal
from autotune.tracking.mlflow_listener import SLOW_S

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_LOG = logging.getLogger(__name__)

_ATTEMPTS = 3
"""Times that a file is tried: a server that is away comes back, whatever else keeps a file out mostly stays."""
_LOCAL = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
"""What the file system says of a file or of the folder of artifacts, and will say again."""


@dataclass(kw_only=True)
class _File:
    """A file that waits.

    Attributes:
        path: Where it is.
        folder: Folder among the run's artifacts; None is none.
        attempts: How often keeping it has failed.
    """

    path: Path
    folder: str | None
    attempts: int = 0


class RunFiles:
    """Keeps files with a run. One that cannot be kept is let go of with a warning, and holds nothing else up.

    Args:
        rest_s: How long files are left alone after a failure.
        clock: Monotonic seconds.
    """

    def __init__(self, rest_s: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._breaker = Breaker(rest_s, clock)
        self._waiting: deque[_File] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, path: Path, folder: str | None) -> None:
        """Take a file that is to be kept."""
        self._waiting.append(_File(path=path, folder=folder))

    def send(self, client: MlflowClient, run_id: str, *, last: bool = False) -> None:
        """Keep what waits with a run, until something fails.

        Args:
            client: MLflow's client.
            run_id: The run.
            last: Whether nobody will ask again, so that neither a rest nor a slow call ends it.
        """
        if last:
            self._breaker.reset()
        while self._waiting and not self._breaker.resting:
            started_s = self._clock()
            self._send(self._waiting.popleft(), client, run_id)
            if not last and self._clock() - started_s > SLOW_S:
                self._breaker.trip()

    def _send(self, file: _File, client: MlflowClient, run_id: str) -> None:
        try:
            client.log_artifact(run_id, str(file.path), file.folder)
        except Exception as error:  # noqa: BLE001  (whatever MLflow raises, tracking is best effort)
            file.attempts += 1
            if is_refusal(error) or isinstance(error, _LOCAL) or file.attempts >= _ATTEMPTS:
                _LOG.warning("the file %s is not kept with the run in MLflow: %s", file.path, error)
            else:
                _LOG.info("the file %s could not be kept with the run in MLflow yet: %s", file.path, error)
                self._waiting.append(file)  # behind the others, which may have nothing wrong with them
                self._breaker.trip()


__all__ = ["RunFiles"]
