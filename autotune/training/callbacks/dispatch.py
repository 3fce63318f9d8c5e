"""All callbacks of a training as one."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from autotune.errors import SpecError
from autotune.training.callbacks.base import Callback, Logs
from autotune.training.forward import Outputs
from autotune.training.plain_values import check_plain

if TYPE_CHECKING:
    from autotune.training.trainer import Trainer

_LOG = logging.getLogger(__name__)


class Callbacks:
    """Tells several callbacks, in ascending `order`.

    Args:
        callbacks: The callbacks.

    Raises:
        SpecError: Something is no `Callback`.
    """

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        given = list(callbacks)
        for callback in given:
            if not isinstance(callback, Callback):
                raise SpecError(
                    f"callbacks are objects of subclasses of autotune.training.callbacks.Callback, got {callback!r}"
                )
        self.all = sorted(given, key=lambda callback: callback.order)
        self._begun: list[Callback] = []

    def set_trainer(self, trainer: Trainer) -> None:
        """Introduce the trainer."""
        for callback in self.all:
            callback.set_trainer(trainer)

    def include(self, callback: Callback, *, wanted: bool) -> None:
        """Tell a callback from now on, or no longer."""
        others = [other for other in self.all if other is not callback]
        self.all = sorted([*others, callback], key=lambda one: one.order) if wanted else others

    def on_train_begin(self, logs: Logs) -> None:
        """Tell that the training begins; those that it was told to are told of its end."""
        self._begun.clear()
        for callback in self.all:
            self._begun.append(callback)
            callback.on_train_begin(logs)

    def on_train_end(self, logs: Logs) -> None:
        """Tell that the training ends, all of them whatever one of them does.

        An error of theirs is logged where the training failed itself, so that the first is the one that is raised.
        """
        failed: Exception | None = None
        for callback in self._begun:
            try:
                callback.on_train_end(logs)
            except Exception as error:  # noqa: BLE001  (whatever it is, the others must hear of the end)
                if failed is not None or logs["status"] == "failed":
                    _LOG.warning("%s failed at the end of the training: %s", type(callback).__qualname__, error)
                else:
                    failed = error
        if failed is not None:
            raise failed

    def on_epoch_begin(self, epoch: int) -> None:
        """Tell that an epoch begins."""
        for callback in self.all:
            callback.on_epoch_begin(epoch, {})

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Tell that an epoch is over."""
        for callback in self.all:
            callback.on_epoch_end(epoch, logs)

    def on_batch_end(self, batch: int, logs: Logs) -> None:
        """Tell that a batch of training is over."""
        for callback in self.all:
            callback.on_batch_end(batch, logs)

    def validated(self, batch: int, outputs: Outputs, probabilities: torch.Tensor) -> None:
        """Tell that a batch of validation is over."""
        if not self.all:
            return
        logs = {
            "images": outputs.images,
            "targets": outputs.targets,
            "probabilities": probabilities,
            "thresholds": outputs.thresholds,
        }
        for callback in self.all:
            callback.on_validation_batch_end(batch, logs)

    def on_test_end(self, logs: Logs) -> None:
        """Tell that a test is over."""
        for callback in self.all:
            callback.on_test_end(logs)

    def on_error(self, error: BaseException) -> None:
        """Tell of an error; one that a callback has over it is logged, so that the first is the one that is raised."""
        for callback in self._begun:
            try:
                callback.on_error(error)
            except Exception as further:  # noqa: BLE001  (whatever it is, the first error is what is to be seen)
                _LOG.warning("%s failed over an error of the training: %s", type(callback).__qualname__, further)

    def state(self) -> list[dict[str, Any]]:
        """Give the states of callbacks that have one, with the names of their classes."""
        found = ((type(callback).__qualname__, callback.state_dict()) for callback in self.all)
        return [{"name": name, "state": state} for name, state in found if state]

    def set_state(self, states: list[dict[str, Any]], *, further: Iterable[Callback] = ()) -> None:
        """Give each callback the next state of its class; those without one begin anew.

        Args:
            states: What `state` gave.
            further: Callbacks that are not told of anything now, and may be later.
        """
        left = list(states)
        for callback in (*self.all, *further):
            name = type(callback).__qualname__
            mine = next((entry for entry in left if entry["name"] == name), None)
            if mine is not None:
                left.remove(mine)
                callback.load_state_dict(mine["state"])


def check_states(states: list[dict[str, Any]]) -> None:
    """Refuse states that a checkpoint could not give back.

    Raises:
        CheckpointError: There is one; the message names the class of the callback, and the place.
    """
    for one in states:
        check_plain(one["state"], f"{one['name']}.state_dict()")


__all__ = ["Callbacks", "check_states"]
