"""`Callback`: what a training tells while it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from autotune.training.trainer import Trainer

Logs = Mapping[str, Any]


class Callback:
    """Base of callbacks: every method does nothing until a subclass has it.

    In distributed training each rank has its own callbacks, and the figures in `logs` are those of all ranks; what is
    written once asks `self.trainer.leads`. `trainer.save_checkpoint` is called by all ranks or none. An error that a
    callback raises ends the training.

    Attributes:
        trainer: The trainer, from its construction on.
        order: Callbacks are told in ascending order of it, and those of one order as they were given: what looks at
            figures first, what sends or saves them last.
    """

    order: ClassVar[int] = 0
    trainer: Trainer

    def set_trainer(self, trainer: Trainer) -> None:
        """Take note of the trainer."""
        self.trainer = trainer

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin; `logs` has the `epoch` that comes first."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """End, however it ends; `logs` has the `status` (`finished`, `stopped`, `failed`) and the `history`.

        Callbacks that were not told the beginning, as one before them failed there, are not told the end.
        """

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Begin an epoch, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """End an epoch.

        Args:
            epoch: Its number, counted from 0.
            logs: Its figures: `train_loss`, `learning_rate`, `data_wait_share`, `first_batch_s`, `train_s`; with
                validation `val_loss`, and `val_metrics`, a dictionary of them.
        """

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """End a batch of training.

        Args:
            batch: Its number in the epoch, counted from 0.
            logs: `epoch`, `loss`, `learning_rate`, and `gradient_norm`, which is None where it made no update.
        """

    def on_validation_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """End a batch of validation.

        Args:
            batch: Its number, counted from 0.
            logs: `images`, `targets`, `probabilities` `(M, ...)` and `thresholds` (None without), on the device.
        """

    def on_test_end(self, logs: Logs | None = None) -> None:
        """End a test; `logs` has its figures."""

    def on_error(self, error: BaseException) -> None:
        """Take note that the training ends by an error, which is raised afterwards."""

    def state_dict(self) -> dict[str, Any]:
        """Give what the callback goes on with after a break, in tensors and plain values (`float`, not NumPy's)."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


__all__ = ["Callback", "Logs"]
