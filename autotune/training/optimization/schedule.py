"""A schedule of the learning rate: when it is stepped, where it stands, and how it goes on from there."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from autotune.errors import SpecError

_LOG = logging.getLogger(__name__)

Interval = Literal["batch", "epoch", "metric"]


class Schedule:
    """Steps one of torch's schedulers, and keeps the last rate when its length is over.

    Args:
        optimizer: What has the learning rate.
        build: Makes torch's scheduler anew; None keeps the rate.
        interval: When to call `step`: after each update (`batch`), each epoch, or each epoch with its figure.
        length: Steps that the scheduler takes; None is any number.
        shape: Everything that the rates follow from, with `steps_per_epoch`; written into the state.

    Attributes:
        interval: When to call `step`.
        shape: Everything that the rates follow from.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        build: Callable[[Optimizer], LRScheduler] | None,
        *,
        interval: Interval,
        length: int | None,
        shape: dict[str, Any],
    ) -> None:
        self.interval: Interval = interval
        self.shape = shape
        self._optimizer = optimizer
        self._build = build
        self._length = length
        self._taken = 0
        self._rate = shape["learning_rate"]
        self._scheduler = build(optimizer) if build is not None else None

    def step(self, metric: float | None = None) -> None:
        """Go one step on.

        Args:
            metric: Figure of the epoch; needed where `interval` is `metric`, and left aside elsewhere.

        Raises:
            SpecError: The schedule goes by a figure, and there is none.
        """
        scheduler = self._scheduler
        if isinstance(scheduler, ReduceLROnPlateau):
            if metric is None:
                raise SpecError(
                    "scheduler_type='plateau' goes by the figure that Config.monitor names, got None; name one that "
                    "each epoch has, or take another scheduler_type"
                )
            scheduler.step(metric)
        elif scheduler is not None and (self._length is None or self._taken < self._length):
            scheduler.step()
        self._taken += 1

    def state_dict(self) -> dict[str, Any]:
        """Give a copy of everything that the next rates follow from, of plain values."""
        inner = None if self._scheduler is None else copy.deepcopy(self._scheduler.state_dict())
        return {"shape": dict(self.shape), "taken": self._taken, "scheduler": inner}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, after the optimizer's was loaded.

        A schedule of the same shape goes on exactly. One of another shape, as after a change of the configuration,
        takes over at the same epoch: with the rate that it has there, or with the optimizer's where it goes by a
        figure.
        """
        if state["shape"] == self.shape:
            self._taken = state["taken"]
            if self._scheduler is not None:
                self._scheduler.load_state_dict(copy.deepcopy(state["scheduler"]))
            return
        epochs = state["taken"] / state["shape"]["steps_per_epoch"]
        _LOG.info("the learning rate goes on by another schedule after %.3g epochs: %s", epochs, self.shape)
        self._taken = 0
        if self.interval == "metric":
            return
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] = self._rate
        self._scheduler = self._build(self._optimizer) if self._build is not None else None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
            for _ in range(round(epochs * self.shape["steps_per_epoch"])):
                self.step()


__all__ = ["Interval", "Schedule"]
