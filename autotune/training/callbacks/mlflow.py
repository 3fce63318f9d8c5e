"""`MlflowCallback`: a training as a run of MLflow, with the loader's study and trial among its tags."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from autotune.home import home_folder
from autotune.tracking.mlflow_listener import default_tracking_uri
from autotune.tracking.training_runs import TrainingRun
from autotune.training.callbacks.base import Callback, Logs
from autotune.training.callbacks.monitoring import figures_of

_STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}


class MlflowCallback(Callback):
    """Tells MLflow of a training: configuration, figures of each epoch, pictures, and where the loader comes from.

    Whatever MLflow does, the training goes on: calls have short time-outs, and what could not be sent is sent later.
    A training that goes on after a break goes on in its run.

    Args:
        experiment: Name of the experiment.
        tracking_uri: MLflow's tracking URI; None is `MLFLOW_TRACKING_URI`, else a file in autotune's home folder.
        run_name: Name of the run; None lets MLflow choose.
        tags: Further tags.
        home: Home folder; None is `AUTOTUNE_HOME`, else the user's data folder.
        environ: Environment.
    """

    order: ClassVar[int] = 20

    def __init__(
        self,
        experiment: str = "autotune training",
        *,
        tracking_uri: str | None = None,
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        home: str | Path | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        folder = home_folder(home, environ)
        self._run = TrainingRun(
            tracking_uri=tracking_uri or environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri(folder),
            experiment=experiment,
            artifact_root=folder / "mlartifacts",
            run_name=run_name,
        )
        self._tags = dict(tags or {})
        self._sent = 0
        self._loader: dict[str, str] = {}

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None until it was created."""
        return self._run.run_id

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Create the run, or go on with it."""
        del logs
        if self.trainer.leads:
            params = {name: str(value) for name, value in self.trainer.config.model_dump().items()}
            self._run.begin(params=params | self._loader_params(), tags={**self.trainer.loader_tags, **self._tags})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Send the figures of an epoch, files that were made since, and what a loader that tunes itself has found."""
        if self.trainer.leads:
            before, params = self._loader, self._loader_params()
            if params != before:
                self._run.note(params=params, tags={**self.trainer.loader_tags, **self._tags})
            self._run.log_metrics(figures_of(logs or {}), step=epoch)
            self._send_files()

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Send the figures of a test."""
        if self.trainer.leads:
            figures = {f"test_{name}": float(value) for name, value in (logs or {}).items()}
            self._run.log_metrics(figures, step=self.trainer.epoch)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """End the run."""
        if self.trainer.leads:
            self._send_files()
            self._run.finish(_STATUS[(logs or {}).get("status", "finished")])

    def state_dict(self) -> dict[str, Any]:
        """Give the run that a training goes on with."""
        return {"run_id": self._run.run_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the run of a state."""
        self._run.continue_run(state["run_id"])

    def _loader_params(self) -> dict[str, str]:
        """Give the settings of the loader, and take note of them."""
        self._loader = {f"loader.{name}": value for name, value in self.trainer.loader_params.items()}
        return self._loader

    def _send_files(self) -> None:
        for path in self.trainer.artifacts[self._sent :]:
            self._run.log_file(path, folder="pictures" if path.suffix == ".png" else None)
        self._sent = len(self.trainer.artifacts)


__all__ = ["MlflowCallback"]
