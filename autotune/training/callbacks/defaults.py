"""The callbacks that a training has without being told."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.training.callbacks.base import Callback
from autotune.training.callbacks.early_stopping import EarlyStopping
from autotune.training.callbacks.progress import ProgressCallback
from autotune.training.config import Config


def with_defaults(callbacks: Sequence[Callback] | None, config: Config) -> list[Callback]:
    """Give the callbacks of a training.

    Args:
        callbacks: What the caller gave; None is a bar of progress where there is a terminal.
        config: Its `early_stopping_patience` adds early stopping, where none is given.
    """
    chosen: list[Callback] = [ProgressCallback()] if callbacks is None else list(callbacks)
    stops = any(isinstance(callback, EarlyStopping) for callback in chosen)
    if config.early_stopping_patience is not None and not stops:
        chosen.append(EarlyStopping())
    return chosen


__all__ = ["with_defaults"]
