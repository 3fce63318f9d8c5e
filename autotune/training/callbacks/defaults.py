"""The callbacks that a training has without being told."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.training.callbacks.base import Callback
from autotune.training.callbacks.early_stopping import EarlyStopping
from autotune.training.callbacks.progress import ProgressCallback


def with_progress(callbacks: Sequence[Callback] | None) -> list[Callback]:
    """Give the callbacks of a training: a bar of progress, where there is a terminal, in place of None."""
    return [ProgressCallback()] if callbacks is None else list(callbacks)


def default_stopping(callbacks: Sequence[Callback]) -> EarlyStopping | None:
    """Give the early stopping that goes by the configuration; None where the caller has given some."""
    return None if any(isinstance(callback, EarlyStopping) for callback in callbacks) else EarlyStopping()


__all__ = ["default_stopping", "with_progress"]
