"""`EarlyStopping`: ends a training that no longer gets better."""

from __future__ import annotations

import logging
from typing import Any

from autotune.errors import SpecError
from autotune.training.callbacks.base import Callback, Logs
from autotune.training.callbacks.monitoring import Best, monitored

_LOG = logging.getLogger(__name__)


class EarlyStopping(Callback):
    """Ends the training after a number of epochs without improvement.

    A training that ended so goes on where `train` is called with a patience that is not used up.

    Args:
        patience: Epochs without improvement; None is `early_stopping_patience` of the configuration.
        monitor: Figure of an epoch; None is that of the configuration.
        mode: Whether the lowest (`min`) or the highest (`max`) is the best; None is that of the configuration.
        min_delta: What a figure must be better by to count.

    Attributes:
        waited: Epochs since the last improvement.

    Raises:
        SpecError: A setting breaks a rule, or nobody says how long to wait.
    """

    def __init__(
        self,
        patience: int | None = None,
        *,
        monitor: str | None = None,
        mode: str | None = None,
        min_delta: float = 0.0,
    ) -> None:
        if patience is not None and patience < 1:
            raise SpecError(f"patience is at least 1 epoch, got {patience}")
        self._patience = patience
        self._monitor = monitor
        self._mode = mode
        self._min_delta = min_delta
        self._best = Best(mode or "min", min_delta)
        self.waited = 0
        self._ended = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Take what was not given from the configuration, and go on where that says to wait longer than before."""
        del logs
        wait = self._wait()
        if wait is None:
            raise SpecError(
                "EarlyStopping needs patience, got None here and in the configuration; give EarlyStopping(5)"
            )
        config, before = self.trainer.config, self._best
        self._best = Best(self._mode or config.monitor_mode, self._min_delta, monitor=self._monitor or config.monitor)
        if not self._best.go_on_from(before):
            self.waited = 0
        if self.waited < wait:
            self.resume()

    def resume(self) -> None:
        """Let the training go on, where early stopping had ended it."""
        if self._ended:
            self._ended = self.trainer.stop_training = False

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Count an epoch, and end the training where enough were in vain."""
        name = self._best.monitor or self.trainer.config.monitor
        value = monitored(logs or {}, name)
        self.waited = 0 if self._best.improves(value) else self.waited + 1
        if self.waited >= (self._wait() or 1):
            self._ended = self.trainer.stop_training = True
            _LOG.info(
                "the training ends after epoch %d: %s was %.6g at best, and no better for %d epochs",
                epoch, name, float("nan") if self._best.value is None else self._best.value, self.waited,
            )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Give the best figure, how long it was waited, and whether that ended the training."""
        return {"best": self._best.state_dict(), "waited": self.waited, "ended": self._ended}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._best.load_state_dict(state["best"])
        self.waited, self._ended = state["waited"], state["ended"]

    def _wait(self) -> int | None:
        return self._patience or self.trainer.config.early_stopping_patience


__all__ = ["EarlyStopping"]
