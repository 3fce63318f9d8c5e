"""What every cache mode offers, and what all modes that keep samples share."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from autotune.data.archives._base import sized
from autotune.data.shared_memory import SharedMemory
from autotune.data.stages import base_sample
from autotune.data.wrapped import WrappedDataset

_logger = logging.getLogger(__name__)

_COUNTER_SLOTS = 1024
"""Each process counts in the slot of its number, so that no two workers write to one counter."""


class _Absent(Enum):
    ABSENT = "absent"


ABSENT: Final = _Absent.ABSENT
"""What a store gives for a sample that it does not hold; samples themselves may be None."""
MaybeSample = Any | Literal[_Absent.ABSENT]


class CacheMode(Protocol):
    """One way to keep samples once they were read.

    What is kept is the deterministic part of a sample; an `augment` stage runs on what comes out. The
    wrapped dataset has the same length and order, gives fresh samples that are equal bit for bit, and
    forwards every other attribute to the dataset. Modes that keep samples give a `CachedDataset`.
    """

    def wrap(
        self,
        dataset: Dataset[Any],
        *,
        fraction: float | None = 1.0,
        directory: Path | None = None,
        limit_bytes: int | None = None,
        device: torch.device | None = None,
    ) -> Dataset[Any]:
        """Put the cache around a dataset.

        Args:
            dataset: What is read on a miss.
            fraction: Share of the samples to keep, above 0 and at most 1; None is the largest that fits.
            directory: Folder for modes that keep files.
            limit_bytes: Most bytes to keep; None is what the machine has available.
            device: Device for modes that keep samples on one; None is the accelerator.

        Raises:
            ArchiveError: The samples cannot be kept exactly, or not in this mode.
            CapacityError: The share does not fit.
            RandomSamplesError: Samples are random and not told apart in stages.
        """


class CachedDataset(WrappedDataset):
    """A dataset of which a share of the samples is kept where it was read once.

    Which samples have a place is a fixed random choice, so that every part of the data is served alike.
    Samples without one are read through. Whoever reads a sample first keeps it, in any worker. When there
    is no more room, keeping stops with one warning, and `fraction` and `filled` tell what is there.

    Subclasses say where a sample lies: `holds`, `fetch`, `store`, `filled` and `used_bytes`.

    Args:
        source: The dataset that is wrapped.
        rows: Samples that have a place.
        planned_bytes: What they are expected to take.
        name: Name of the mode, as warnings say it.
    """

    def __init__(self, source: Dataset[Any], *, rows: int, planned_bytes: int, name: str) -> None:
        super().__init__(source)
        self._row_count = rows
        self._rows = rows_of_samples(sized(source), rows)
        self._planned_bytes = planned_bytes
        self._name = name
        self._told_left_out = False
        self._shared = SharedMemory(8 * (2 * _COUNTER_SLOTS + 1))
        self._attach_counters()

    def holds(self, index: int, row: int) -> bool:
        """Tell whether a sample that has a place is there."""
        raise NotImplementedError

    def fetch(self, index: int, row: int) -> MaybeSample:
        """Give a fresh copy of a sample that has a place, or `ABSENT`."""
        raise NotImplementedError

    def fetch_batch(self, rows: npt.NDArray[np.int64]) -> list[Any] | None:  # noqa: ARG002
        """Give the samples of a whole batch at once where all are there and the mode can; else None."""
        return None

    def store(self, index: int, row: int, sample: Any) -> None:
        """Keep a sample at its place, or leave it out, or stop keeping."""
        raise NotImplementedError

    @property
    def filled(self) -> int:
        """Samples that are in the cache."""
        raise NotImplementedError

    @property
    def used_bytes(self) -> int:
        """Bytes that the samples in the cache take."""
        raise NotImplementedError

    @property
    def fraction(self) -> float:
        """Share of the samples that have a place in the cache, or are in it where keeping has stopped."""
        return (self.filled if self.stopped else self._row_count) / len(self)

    @property
    def size_bytes(self) -> int:
        """Bytes of the samples that have a place; of those that are there once no more will come."""
        return self.used_bytes if self.stopped or self.filled == self._row_count else self._planned_bytes

    @property
    def hits(self) -> int:
        """Reads that the cache answered, over all workers."""
        return int(self._counters[:, 0].sum())

    @property
    def misses(self) -> int:
        """Reads that went to the dataset, over all workers; filling counts as none."""
        return int(self._counters[:, 1].sum())

    def reset_counters(self) -> None:
        """Set hits and misses to 0."""
        self._counters[:] = 0

    @property
    def stopped(self) -> bool:
        """Whether keeping has stopped, in any worker."""
        return bool(self._stopped[0])

    def stop(self, reason: str) -> None:
        """Keep no more samples, in no worker, and say so once."""
        with self._shared.locked():
            first = not self._stopped[0]
            self._stopped[0] = 1
        if first:
            _logger.warning(
                "The %s cache keeps no more than %s of %s samples and reads the others from the dataset: %s",
                self._name,
                f"{self.filled:,}",
                f"{len(self):,}",
                reason,
            )

    def leave_out(self, index: int, reason: object) -> None:
        """Say once a process that a sample is not kept, whatever is done."""
        if not self._told_left_out:
            self._told_left_out = True
            _logger.warning("Sample %d, and others like it, stay out of the %s cache: %s", index, self._name, reason)

    def fill(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read every sample that has a place and is not there yet, as far as there is room.

        Args:
            progress: Told how many samples that have a place are done, and how many have one.
        """
        places = np.flatnonzero(self._rows >= 0)
        for done, index in enumerate(places.tolist(), 1):
            row = int(self._rows[index])
            if not self.holds(index, row):
                if self.stopped:
                    return
                self.store(index, row, base_sample(self.source, index))
            if progress is not None:
                progress(done, len(places))

    def base_sample(self, index: int) -> Any:
        """Give one sample from the cache, else from the dataset, and keep it where it has a place."""
        row = int(self._rows[index])
        if row >= 0:
            found = self.fetch(index, row)
            if found is not ABSENT:
                self.count(hits=1)
                return found
        self.count(misses=1)
        sample = base_sample(self.source, index)
        if row >= 0 and not self.stopped:
            self.store(index, row, sample)
        return sample

    def base_samples(self, indices: Sequence[int]) -> list[Any]:
        """Gather a batch at once where the mode can."""
        rows = self._rows[np.asarray(indices, dtype=np.int64)]
        if len(rows) and bool((rows >= 0).all()):
            batch = self.fetch_batch(rows)
            if batch is not None:
                self.count(hits=len(rows))
                return batch
        return [self.base_sample(index) for index in indices]

    def count(self, *, hits: int = 0, misses: int = 0) -> None:
        """Count reads of this process."""
        slot = self._counters[os.getpid() % _COUNTER_SLOTS]
        slot[0] += hits
        slot[1] += misses

    def _attach_counters(self) -> None:
        numbers = self._shared.array(0, self._shared.size_bytes).view(np.int64)
        self._counters: npt.NDArray[np.int64] = numbers[: 2 * _COUNTER_SLOTS].reshape(_COUNTER_SLOTS, 2)
        self._stopped: npt.NDArray[np.int64] = numbers[2 * _COUNTER_SLOTS :]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_counters", "_stopped")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._attach_counters()


def rows_of_samples(count: int, rows: int) -> npt.NDArray[np.int64]:
    """Give each sample its row, or -1: a fixed random choice, which a larger share keeps and adds to."""
    places = np.full(count, -1, dtype=np.int64)
    chosen = np.sort(np.random.default_rng(0).permutation(count)[:rows])
    places[chosen] = np.arange(rows)
    return places
