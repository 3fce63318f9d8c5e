"""Passes of a sampler over its dataset, each of which is an epoch that the dataset is told."""

from __future__ import annotations

from typing import Any

from autotune.data.stages import begin_epoch


class Passes:
    """Counts the passes of a sampler, and tells its dataset which epoch each of them is.

    The first pass is epoch 0, the next one epoch 1 and so on. Once the caller has set an epoch, it stays until the
    caller sets another.

    Args:
        dataset: What the sampler stands before.

    Attributes:
        begun: Passes that have begun.
    """

    def __init__(self, dataset: Any) -> None:
        self.begun = 0
        self._dataset = dataset
        self._set: int | None = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the passes that begin from now on."""
        self._set = epoch

    def begin(self) -> int:
        """Begin a pass, and give its epoch."""
        epoch = self.begun if self._set is None else self._set
        self.begun += 1
        begin_epoch(self._dataset, epoch, steered=self._set is not None)
        return epoch


__all__ = ["Passes"]
