"""`CheckpointingCallback`: the last, the best and a few epochs before, each a file that is whole."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, ClassVar

from autotune.errors import AutotuneError, SpecError
from autotune.training.callbacks.base import Callback, Logs
from autotune.training.callbacks.monitoring import Best, monitored

_LOG = logging.getLogger(__name__)

BEST, LAST, BEFORE_ERROR = "model_best.pt", "model_last.pt", "model_before_error.pt"


class CheckpointingCallback(Callback):
    """Keeps `model_last.pt`, `model_best.pt` and `model_epoch_<number>.pt` of the last few epochs.

    Where a training ends by an error, `model_before_error.pt` holds the state after its last whole batch, or after its
    last update where the error came in a batch whose gradients wait for others; it stays as it is where the error came
    within an update, which leaves nothing to go on from. An epoch's files are one on the disk, under several names.
    Only what this training wrote is removed, before a break too; another one in the same folder writes over files of
    the same name.

    Args:
        checkpoint_dir: Folder of the files.
        monitor: Figure of an epoch that decides which is the best; None is that of the configuration.
        mode: Whether the lowest (`min`) or the highest (`max`) is; None is that of the configuration.
        every_epochs: Epochs between two checkpoints; the best and the last are kept in any case. None is
            `checkpoint_every_epochs` of the configuration.
        keep: Epochs that are kept beside them; None is `keep_checkpoints` of the configuration.

    Raises:
        SpecError: A setting breaks a rule.
    """

    order: ClassVar[int] = 30

    def __init__(
        self,
        checkpoint_dir: str | os.PathLike[str] = "checkpoints",
        *,
        monitor: str | None = None,
        mode: str | None = None,
        every_epochs: int | None = None,
        keep: int | None = None,
    ) -> None:
        for name, value in (("every_epochs", every_epochs), ("keep", keep)):
            if value is not None and value < 1:
                raise SpecError(f"{name} is at least 1, got {value}")
        self.checkpoint_dir = Path(checkpoint_dir)
        self._monitor = monitor
        self._mode = mode
        self._every = every_epochs
        self._keep = keep
        self._best = Best(mode or "min")
        self._written: list[str] = []

    @property
    def best_path(self) -> Path:
        """The checkpoint of the best epoch."""
        return self.checkpoint_dir / BEST

    @property
    def last_path(self) -> Path:
        """The checkpoint of the last epoch."""
        return self.checkpoint_dir / LAST

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Take what was not given from the configuration."""
        del logs
        config, before = self.trainer.config, self._best
        self._best = Best(self._mode or config.monitor_mode, monitor=self._monitor or config.monitor)
        self._best.go_on_from(before)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Keep the epoch where it is due or the best."""
        config = self.trainer.config
        best = self._best.improves(monitored(logs or {}, self._best.monitor or config.monitor))
        over = self.trainer.agrees_to_stop() or epoch + 1 >= config.epochs
        due = over or (epoch + 1) % (self._every or config.checkpoint_every_epochs) == 0
        if due:
            self._save_epoch(f"model_epoch_{epoch:04d}.pt", [LAST, BEST] if best else [LAST])
        elif best:
            self.trainer.save_checkpoint(self.best_path)

    def on_error(self, error: BaseException) -> None:
        """Keep the state that the error came upon."""
        kept = []
        try:
            path = self.trainer.save_checkpoint(self.checkpoint_dir / BEFORE_ERROR)
            kept.append(f"the state before the error is kept in {path}")
        except AutotuneError as further:
            _LOG.warning("the state before the error is not kept: %s", further)
        if self._written and self.last_path.is_file():  # else it is of another training, or not there
            kept.append(f"the last whole epoch is kept in {self.last_path}")
        if kept:
            told = ", ".join(kept)
            error.add_note(told[0].upper() + told[1:])

    def state_dict(self) -> dict[str, Any]:
        """Give the best figure, and the names of the epochs that are kept."""
        return {"best": self._best.state_dict(), "written": list(self._written)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._best.load_state_dict(state["best"])
        self._written = list(state["written"])

    def _save_epoch(self, name: str, names: list[str]) -> None:
        """Write an epoch under its names, and remove old ones."""
        self._written = [*(other for other in self._written if other != name), name]
        self.trainer.save_checkpoint(self.checkpoint_dir / name, names=names)
        keep = self._keep or self.trainer.config.keep_checkpoints
        old, self._written = self._written[:-keep], self._written[-keep:]
        if not self.trainer.leads:
            return
        for other in old:
            try:
                (self.checkpoint_dir / other).unlink(missing_ok=True)
            except OSError as error:
                _LOG.warning("the checkpoint %s of an old epoch is not removed: %s", other, error)


__all__ = ["BEFORE_ERROR", "BEST", "LAST", "CheckpointingCallback"]
