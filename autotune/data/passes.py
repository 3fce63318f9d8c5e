"""Passes of a sampler over its dataset, each of which is an epoch that the dataset is told."""

from __future__ import annotations

from typing import Any

from autotune.data.stages import begin_epoch, epochs_of


class Passes:
    """Counts the passes of a sampler, and tells its dataset which epoch each of them is.

    The first pass is epoch 0, the next one epoch 1 and so on. An epoch that the caller sets is that of the next pass,
    from which later ones go on: set to 5, they are 5, 6, 7.

    Args:
        dataset: What the sampler stands before.
        leads: Whether passes of samplers that do not lead leave the dataset's epoch to this one from its first pass
            on, for as long as it lives.

    Attributes:
        begun: Passes that have begun.
    """

    def __init__(self, dataset: Any, *, leads: bool) -> None:
        self.begun = 0
        self._dataset = dataset
        self._leads = leads
        self._next = 0
        self._steered = False

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the pass that begins next."""
        self._next = epoch
        self._steered = True

    def begin(self) -> int:
        """Begin a pass, and give its epoch."""
        epoch = self._next
        self._next += 1
        self.begun += 1
        begin_epoch(self._dataset, epoch, steered=self._steered, leads=self._leads or self._steered)
        if self._leads:
            for led in epochs_of(self._dataset):
                led.lead(self)
        return epoch


__all__ = ["Passes"]
