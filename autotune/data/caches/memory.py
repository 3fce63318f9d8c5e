"""Samples in memory: one copy for all workers of a node."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from autotune.data.archives._base import sized
from autotune.data.archives.npy import check_layout
from autotune.data.fixed_layout import FixedLayout, row_of
from autotune.data.randomness import refuse_random, refuse_unlike_stages
from autotune.data.samples import Leaf, take_apart
from autotune.data.shared_memory import SharedMemory
from autotune.data.stages import base_sample
from autotune.data.wrapped import WrappedDataset
from autotune.errors import CapacityError, SpecError
from autotune.units import format_bytes

_logger = logging.getLogger(__name__)

_ALIGNMENT = 64
_COUNTER_SLOTS = 1024
"""Each process counts in the slot of its number, so that no two workers write to one counter."""
_LAYOUT_PROBES = 4
"""Samples whose layout is compared before memory is asked for."""


class MemoryCacheMode:
    """Keeps samples of one fixed layout in memory that all workers share."""

    def wrap(
        self,
        dataset: Dataset[Any],
        *,
        fraction: float = 1.0,
        directory: Path | None = None,  # noqa: ARG002
        limit_bytes: int | None = None,
    ) -> MemoryCache:
        """Put an empty cache around a dataset; it fills by `fill()` or as samples are read.

        Raises:
            CapacityError: The share of the samples does not fit.
            ArchiveError: Samples differ in structure or shape, hold what is no array, or are not what their
                stages give.
            RandomSamplesError: Samples are random and not told apart in stages.
        """
        if not 0 < fraction <= 1:
            raise SpecError(f"a cached fraction must be above 0 and at most 1, got {fraction}")
        count = sized(dataset)
        refuse_random(dataset, "cached")
        refuse_unlike_stages(dataset)
        layout = common_layout(dataset)
        rows = max(1, round(fraction * count))
        needed = layout.sample_bytes * rows
        available = available_bytes() if limit_bytes is None else limit_bytes
        if available is not None and needed > available:
            raise CapacityError(
                f"a memory cache of {rows:,} samples needs {format_bytes(needed)}, and {format_bytes(available)} "
                "may be used; lower cache_fraction or leave it None",
                needed,
                available,
            )
        return MemoryCache(dataset, layout, rows)


def fitting_fraction(dataset: Dataset[Any], limit_bytes: int | None) -> float:
    """Give the largest share of a dataset's samples that fits into memory, at most 1.

    Raises:
        CapacityError: Not even one sample fits.
    """
    size = max(1, common_layout(dataset).sample_bytes)
    count = sized(dataset)
    available = available_bytes() if limit_bytes is None else limit_bytes
    if available is None or size * count <= available:
        return 1.0
    if size > available:
        raise CapacityError(
            f"one sample needs {format_bytes(size)}, and {format_bytes(available)} may be used for the cache; "
            "use cache 'none'",
            size,
            available,
        )
    return (available // size) / count


def common_layout(dataset: Dataset[Any]) -> FixedLayout:
    """Read a few samples spread over the dataset and give the layout that they share."""
    places = np.unique(np.linspace(0, sized(dataset) - 1, _LAYOUT_PROBES).astype(int)).tolist()
    layout = FixedLayout.of(base_sample(dataset, 0))
    for place in places[1:]:
        check_layout(layout, FixedLayout.of(base_sample(dataset, place)), place)
    return layout


class MemoryCache(WrappedDataset):
    """A dataset with a share of its samples in shared memory.

    A sample that turns out to have another layout than the rest is passed on uncached, with one warning
    a process; `fill` refuses it.

    Attributes:
        fraction: Share of the samples that have a place in the cache.
        size_bytes: Bytes of those samples.
    """

    def __init__(self, source: Dataset[Any], layout: FixedLayout, rows: int) -> None:
        super().__init__(source)
        count = sized(source)
        self.fraction = rows / count
        self.size_bytes = layout.sample_bytes * rows
        self._layout = layout
        self._rows = _rows_of_samples(count, rows)
        self._row_count = rows
        self._warned = False
        self._memory = SharedMemory(self._plan()[-1])
        self._attach()

    def _plan(self) -> list[int]:
        """Give the offsets of counters, flags and each leaf, and the end."""
        sizes = [2 * 8 * _COUNTER_SLOTS, self._row_count, *(size * self._row_count for size in self._layout.row_bytes)]
        offsets = [0]
        for size in sizes:
            offsets.append(offsets[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
        return offsets

    def _attach(self) -> None:
        offsets = self._plan()
        self._counters: npt.NDArray[np.int64] = (
            self._memory.array(0, 2 * 8 * _COUNTER_SLOTS).view(np.int64).reshape(_COUNTER_SLOTS, 2)
        )
        self._flags = self._memory.array(offsets[1], self._row_count)
        self._blocks = [
            self._memory.array(offset, size * self._row_count).reshape(self._row_count, size)
            for offset, size in zip(offsets[2:], self._layout.row_bytes, strict=False)
        ]

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_counters", "_flags", "_blocks")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._attach()

    @property
    def hits(self) -> int:
        """Reads that the cache answered, over all workers."""
        return int(self._counters[:, 0].sum())

    @property
    def misses(self) -> int:
        """Reads that went to the dataset, over all workers; filling counts as none."""
        return int(self._counters[:, 1].sum())

    @property
    def filled(self) -> int:
        """Samples that are in the cache."""
        return int(self._flags.sum())

    def reset_counters(self) -> None:
        """Set hits and misses to 0."""
        self._counters[:] = 0

    def fill(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read every sample that has a place and is not there yet.

        Raises:
            ArchiveError: A sample has another layout than the rest.
        """
        places = np.flatnonzero(self._rows >= 0)
        for done, index in enumerate(places.tolist(), 1):
            row = int(self._rows[index])
            if not self._flags[row]:
                skeleton, leaves = take_apart(base_sample(self.source, index))
                check_layout(self._layout, FixedLayout.of_parts(skeleton, leaves), index)
                self._store(row, leaves)
            if progress is not None:
                progress(done, len(places))

    def base_sample(self, index: int) -> Any:
        """Give one sample from the cache, else from the dataset, and keep it where it has a place."""
        row = int(self._rows[index])
        if row >= 0 and self._flags[row]:
            self._count(hits=1)
            return self._layout.row_sample(self._blocks, row)
        self._count(misses=1)
        sample = base_sample(self.source, index)
        if row >= 0:
            self._keep(row, sample)
        return sample

    def base_samples(self, indices: Sequence[int]) -> list[Any]:
        """Gather a batch at once where all of it is cached."""
        rows = self._rows[np.asarray(indices, dtype=np.int64)]
        if len(rows) and bool((rows >= 0).all()) and bool(self._flags[rows].all()):
            self._count(hits=len(rows))
            return self._layout.gather(self._blocks, rows)
        return [self.base_sample(index) for index in indices]

    def _keep(self, row: int, sample: Any) -> None:
        skeleton, leaves = take_apart(sample)
        if FixedLayout.of_parts(skeleton, leaves) == self._layout:
            self._store(row, leaves)
        elif not self._warned:
            self._warned = True
            _logger.warning("A sample has another layout than (%s) and stays out of the memory cache", self._layout)

    def _store(self, row: int, leaves: Sequence[Leaf]) -> None:
        for block, leaf in zip(self._blocks, leaves, strict=True):
            block[row] = row_of(leaf)
        self._flags[row] = 1  # after the data: a set flag promises that the row is whole

    def _count(self, *, hits: int = 0, misses: int = 0) -> None:
        slot = self._counters[os.getpid() % _COUNTER_SLOTS]
        slot[0] += hits
        slot[1] += misses


def _rows_of_samples(count: int, rows: int) -> npt.NDArray[np.int64]:
    """Give each sample its row, or -1: a fixed random choice, so that every part of the data is served alike."""
    places = np.full(count, -1, dtype=np.int64)
    chosen = np.sort(np.random.default_rng(0).permutation(count)[:rows])
    places[chosen] = np.arange(rows)
    return places


def available_bytes(path: Path = Path("/proc/meminfo")) -> int | None:
    """Give the memory that can be used without swapping; None where the system does not tell."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
