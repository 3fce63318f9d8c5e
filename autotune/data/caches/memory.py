"""Samples in memory: one copy for all workers of a node."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from autotune.data.caches._base import CachedDataset, MaybeSample
from autotune.data.caches.planning import (
    RESERVE_BYTES,
    Look,
    available_bytes,
    check_fraction,
    look_at,
    plan_rows,
)
from autotune.data.caches.rows import FixedRows, VaryingRows
from autotune.data.shared_memory import MemoryAddress, adopted
from autotune.errors import ArchiveError, CapacityError

_SHARED_PARTS = ("_kept", "_rows", "_row_count", "_planned_bytes", "_shared")
"""What caches of one dataset have in common where they share their memory."""


class MemoryCacheMode:
    """Keeps samples in memory that all workers share; it fills by `fill()` or as samples are read.

    The memory is an anonymous file of the kernel (memfd): it counts against host memory and the memory
    cgroup, which are asked before and while it fills, and is not bound by the size of `/dev/shm`.

    Args:
        available: Tells the memory that the machine has left.
    """

    def __init__(self, available: Callable[[], int] = available_bytes) -> None:
        self._available = available

    def wrap(
        self,
        dataset: Dataset[Any],
        *,
        fraction: float | None = 1.0,
        directory: Path | None = None,  # noqa: ARG002
        limit_bytes: int | None = None,
        device: torch.device | None = None,  # noqa: ARG002
    ) -> MemoryCache:
        """Put an empty cache around a dataset.

        Raises:
            CapacityError: The share of the samples does not fit.
            ArchiveError: Samples cannot be given back exactly, or are not what their stages give.
            RandomSamplesError: Samples are random and not told apart in stages.
        """
        check_fraction(fraction)
        look = look_at(dataset)
        limit = max(0, self._available() - RESERVE_BYTES) if limit_bytes is None else limit_bytes
        rows = plan_rows(look, fraction, limit, name="memory")
        return MemoryCache(dataset, look, rows, limit_bytes=limit, available=self._available)


class CacheOffer(NamedTuple):
    """A cache, as another process of the machine takes it over.

    Attributes:
        addresses: Where its memory is found.
        parts: The pickled parts that lie in it.
    """

    addresses: tuple[MemoryAddress, ...]
    parts: bytes


class MemoryCache(CachedDataset):
    """A dataset with a share of its samples in shared memory.

    Samples that share one layout are gathered a batch at once; one that turns out to have another layout
    is left out. A copy in the same process shares the memory; read from a file elsewhere, it is an empty
    cache of the same plan.
    """

    def __init__(
        self, source: Dataset[Any], look: Look, rows: int, *, limit_bytes: int, available: Callable[[], int]
    ) -> None:
        super().__init__(source, rows=rows, planned_bytes=rows * look.sample_bytes, name="memory")
        self._kept: FixedRows | VaryingRows
        if look.layout is None:
            self._kept = VaryingRows(rows, limit_bytes=limit_bytes, available=available)
        else:
            self._kept = FixedRows(rows, look.layout, limit_bytes=limit_bytes, available=available)

    @property
    def filled(self) -> int:
        """Samples that are in the cache."""
        return self._kept.filled

    @property
    def used_bytes(self) -> int:
        """Bytes that the samples in the cache take."""
        return self._kept.used_bytes

    def holds(self, index: int, row: int) -> bool:  # noqa: ARG002
        """Tell whether a sample that has a place is there."""
        return self._kept.holds(row)

    def fetch(self, index: int, row: int) -> MaybeSample:  # noqa: ARG002
        """Give a fresh copy of a sample that has a place, or `ABSENT`."""
        return self._kept.get(row)

    def fetch_batch(self, rows: npt.NDArray[np.int64]) -> list[Any] | None:
        """Gather a batch at once where all of it is there."""
        return self._kept.gather(rows)

    def store(self, index: int, row: int, sample: Any) -> None:
        """Write a sample to its place, unless another worker is ahead."""
        try:
            self._kept.put(row, sample)
        except CapacityError as error:
            self.stop(error.message)
        except ArchiveError as error:
            self.leave_out(index, error)

    def offer(self) -> CacheOffer:
        """Offer the memory to caches of the same dataset in other processes of this machine."""
        parts = {name: self.__dict__[name] for name in _SHARED_PARTS}
        return CacheOffer((self._shared.address(), self._kept.memory.address()), pickle.dumps(parts))

    def accept(self, offer: CacheOffer) -> bool:
        """Use the memory of another process in place of one's own; False where it cannot be had.

        The offer must be of the same dataset and from a process that is trusted, as it is unpickled.
        """
        mapped = [adopted(address) for address in offer.addresses]
        if any(memory is None for memory in mapped):
            return False
        self.__dict__.update(pickle.loads(offer.parts))  # noqa: S301  # of a process of the same user and program
        self._attach_counters()
        return True


__all__ = ["CacheOffer", "MemoryCache", "MemoryCacheMode", "available_bytes"]
