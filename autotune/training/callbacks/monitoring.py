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

    Raises:
        SpecError: The mode is another one, or the difference is negative.
    """

    def __init__(self, mode: str, min_delta: float = 0.0) -> None:
        if mode not in ("min", "max"):
            raise SpecError(f"monitor_mode is 'min' or 'max', got {mode!r}")
        if not min_delta >= 0:
            raise SpecError(f"min_delta is at least 0, got {min_delta!r}")
        self._sign = 1.0 if mode == "min" else -1.0
        self._min_delta = min_delta
        self.value: float | None = None

    def improves(self, value: float) -> bool:
        """Take a value; tell whether it is the best so far. NaN never is."""
        if math.isnan(value):
            return False
        if self.value is not None and self._sign * (self.value - value) <= self._min_delta:
            return False
        self.value = value
        return True


__all__ = ["Best", "figures_of", "monitored"]
