"""What every cache mode offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch.utils.data import Dataset


class CacheMode(Protocol):
    """One way to keep samples once they were read.

    What is kept is the deterministic part of a sample; an `augment` stage runs on what comes out. The
    wrapped dataset has the same length and order, gives fresh samples that are equal bit for bit, and
    forwards every other attribute to the dataset.
    """

    def wrap(
        self,
        dataset: Dataset[Any],
        *,
        fraction: float = 1.0,
        directory: Path | None = None,
        limit_bytes: int | None = None,
    ) -> Dataset[Any]:
        """Put the cache around a dataset.

        Args:
            dataset: What is read on a miss.
            fraction: Share of the samples to keep, above 0 and at most 1.
            directory: Folder for modes that keep files.
            limit_bytes: Most bytes to keep; None is what the machine has available.

        Raises:
            CapacityError: The share does not fit.
            RandomSamplesError: Samples are random and not told apart in stages.
        """
