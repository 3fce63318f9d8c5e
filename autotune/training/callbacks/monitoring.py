"""The figure of an epoch that decides: which is the best, and whether it goes on."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from autotune.errors import SpecError

_LOG = logging.getLogger(__name__)


def monitored(logs: Mapping[str, Any], name: str) -> float:
    """Give a figure of an epoch by its name: one of `logs`, or `val_<metric>`.

    Without validation the loss of training stands in for that of validation.

    Raises:
        SpecError: There is no such figure; the message lists those that there are.
    """
    known = figures_of(logs)
    if name in known:
        return known[name]
    if name == "val_loss" and "val_loss" not in known:
        _LOG.debug("there is no validation, so train_loss stands in for val_loss")
        return known["train_loss"]
    raise SpecError(f"monitor is a figure of an epoch, got {name!r}; there are {', '.join(sorted(known))}")


def figures_of(logs: Mapping[str, Any]) -> dict[str, float]:
    """Give the figures of an epoch under one name each; metrics of validation as `val_<metric>`."""
    plain = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
    metrics: Mapping[str, float] = logs.get("val_metrics") or {}
    return plain | {f"val_{name}": float(value) for name, value in metrics.items()}


class Best:
    """Remembers the best value of a figure.

    Args:
        mode: Whether the lowest (`min`) or the highest (`max`) is the best.
        min_delta: What a value must be better by to count.
        monitor: Name of the figure; None where it is not known yet.

    Attributes:
        mode: As it was given.
        monitor: As it was given.
        value: The best value; None before the first.

    Raises:
        SpecError: The mode is another one, or the difference is negative.
    """

    def __init__(self, mode: str, min_delta: float = 0.0, *, monitor: str | None = None) -> None:
        if mode not in ("min", "max"):
            raise SpecError(f"monitor_mode is 'min' or 'max', got {mode!r}")
        if not min_delta >= 0:
            raise SpecError(f"min_delta is at least 0, got {min_delta!r}")
        self.mode = mode
        self.monitor = monitor
        self.value: float | None = None
        self._sign = 1.0 if mode == "min" else -1.0
        self._min_delta = min_delta

    def go_on_from(self, before: Best) -> bool:
        """Take over the value of another; False where that is of another figure, or of the other mode."""
        if (before.monitor, before.mode) == (self.monitor, self.mode):
            self.value = before.value
            return True
        if before.value is not None:
            _LOG.info(
                "%s (%s) is monitored instead of %s (%s), so its best is found anew",
                self.monitor, self.mode, before.monitor, before.mode,
            )  # fmt: skip
        return False

    def state_dict(self) -> dict[str, Any]:
        """Give the best value, and of what it is one."""
        return {"value": self.value, "monitor": self.monitor, "mode": self.mode}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, as one of the figure and mode of then."""
        self.value, self.monitor, self.mode = state["value"], state["monitor"], state["mode"]
        self._sign = 1.0 if self.mode == "min" else -1.0

    def improves(self, value: float) -> bool:
        """Take a value; tell whether it is the best so far. NaN never is."""
        if math.isnan(value):
            return False
        if self.value is not None and self._sign * (self.value - value) <= self._min_delta:
            return False
        self.value = value
        return True


__all__ = ["Best", "figures_of", "monitored"]
