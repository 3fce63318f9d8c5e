"""The figures of a training, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping

History = dict[str, list[float]]
"""One list for each figure, one number for each epoch; `test_...` has one for each test."""


def add_epoch(history: History, figures: Mapping[str, float], epoch: int) -> None:
    """Add the figures of an epoch; lists stay as long as there are epochs.

    Args:
        history: The figures so far, changed in place.
        figures: Those of the epoch.
        epoch: Its number, counted from 0; figures that are new have NaN for the epochs before.
    """
    for name, value in figures.items():
        known = history.setdefault(name, [])
        known += [float("nan")] * (epoch - len(known))
        known.append(float(value))


__all__ = ["History", "add_epoch"]
