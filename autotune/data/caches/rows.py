"""Samples as rows of shared memory: fixed layouts block by block, varying ones one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.data.batch_buffers import BatchBuffers
from autotune.data.caches._base import ABSENT, MaybeSample
from autotune.data.caches.planning import CHECK_EVERY_BYTES, RESERVE_BYTES
from autotune.data.fixed_layout import ByteBlock, FixedLayout, row_of
from autotune.data.records import pack_sample, unpack
from autotune.data.samples import take_apart
from autotune.data.shared_memory import SharedMemory
from autotune.errors import ArchiveError, CapacityError
from autotune.units import format_bytes

_ALIGNMENT = 64
_NUMBERS = 8
_USED, _CHECKED = range(2)
_EMPTY, _CLAIMED, _READY = range(3)


class SharedRows:
    """Which rows are there and how much room they take, told to all processes that share the memory.

    A row is claimed under a lock, so that of two workers with one sample the second lets it be; then its
    bytes are written, and then it is marked as ready. So a ready row is whole, and reading needs no lock.

    Args:
        rows: Number of rows.
        regions: Bytes of further regions behind the states of the rows.
        limit_bytes: Most bytes that rows may take.
        available: Tells the memory that the machine has left.
    """

    def __init__(self, rows: int, regions: Sequence[int], *, limit_bytes: int, available: Callable[[], int]) -> None:
        self.limit_bytes = limit_bytes
        self._available = available
        self._offsets = [0]
        self._sizes = [8 * _NUMBERS, rows, *regions]
        for size in self._sizes:
            self._offsets.append(self._offsets[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
        self._memory = SharedMemory(self._offsets[-1])
        self._attach()

    @property
    def memory(self) -> SharedMemory:
        """The memory behind all regions."""
        return self._memory

    def _attach(self) -> None:
        self._numbers: npt.NDArray[np.int64] = self.region(0).view(np.int64)
        self._states = self.region(1)

    def region(self, place: int) -> npt.NDArray[np.uint8]:
        """Give a region as bytes."""
        return self._memory.array(self._offsets[place], self._sizes[place])

    def __getstate__(self) -> dict[str, Any]:
        kept = ("limit_bytes", "_available", "_offsets", "_sizes", "_memory")
        return {name: value for name, value in self.__dict__.items() if name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._attach()

    @property
    def filled(self) -> int:
        """Rows that are ready."""
        return int((self._states == _READY).sum())

    @property
    def used_bytes(self) -> int:
        """Bytes that rows take."""
        return int(self._numbers[_USED])

    def holds(self, row: int) -> bool:
        """Tell whether a row is ready."""
        return bool(self._states[row] == _READY)

    def holds_all(self, rows: npt.NDArray[np.int64]) -> bool:
        """Tell whether all of these rows are ready."""
        return bool((self._states[rows] == _READY).all())

    def claim(self, row: int, size: int) -> int | None:
        """Take a row and room for its bytes; give the bytes taken before it, or None where it is taken.

        Raises:
            CapacityError: There is no room.
        """
        with self._memory.locked():
            if self._states[row] != _EMPTY:
                return None
            start = int(self._numbers[_USED])
            self._check_room(start + size)
            self._states[row] = _CLAIMED
            self._numbers[_USED] = start + size
            return start

    def finish(self, row: int) -> None:
        """Mark a row as ready; its bytes are all written."""
        self._states[row] = _READY

    def _check_room(self, end: int) -> None:
        if end > self.limit_bytes:
            raise CapacityError(f"{format_bytes(self.limit_bytes)} may be used", end, self.limit_bytes)
        if end <= int(self._numbers[_CHECKED]):
            return
        needed = end - int(self._numbers[_USED]) + RESERVE_BYTES
        free = self._available()
        if free < needed:
            raise CapacityError(
                f"the machine has {format_bytes(free)} of memory left, of which {format_bytes(RESERVE_BYTES)} are "
                "kept for everything else",
                needed,
                free,
            )
        self._numbers[_CHECKED] = end + min(CHECK_EVERY_BYTES, free - needed)


class FixedRows(SharedRows):
    """Samples of one fixed layout: a block for each leaf, gathered batch by batch."""

    def __init__(self, rows: int, layout: FixedLayout, *, limit_bytes: int, available: Callable[[], int]) -> None:
        self._layout = layout
        regions = [size * rows for size in layout.row_bytes]
        super().__init__(rows, regions, limit_bytes=limit_bytes, available=available)

    def _attach(self) -> None:
        super()._attach()
        self._buffers = BatchBuffers()
        count = len(self._states)
        sizes = self._layout.row_bytes
        self._blocks: list[ByteBlock] = [
            self.region(place).reshape(count, size) for place, size in enumerate(sizes, start=2)
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_layout": self._layout}

    def get(self, row: int) -> MaybeSample:
        """Give a fresh copy of a sample, or `ABSENT`."""
        return self._layout.row_sample(self._blocks, row) if self.holds(row) else ABSENT

    def gather(self, rows: npt.NDArray[np.int64]) -> list[Any] | None:
        """Give the samples of a batch with one gather for each leaf; None where one is missing."""
        return self._layout.gather(self._blocks, rows, self._buffers) if self.holds_all(rows) else None

    def put(self, row: int, sample: Any) -> None:
        """Keep a sample.

        Raises:
            ArchiveError: It has another layout, or cannot be given back exactly.
            CapacityError: There is no room.
        """
        skeleton, leaves = take_apart(sample)
        found = FixedLayout.of_parts(skeleton, leaves)
        if found != self._layout:
            raise ArchiveError(f"the others are ({self._layout}), got ({found})")
        if self.claim(row, self._layout.sample_bytes) is None:
            return
        for block, leaf in zip(self._blocks, leaves, strict=True):
            block[row] = row_of(leaf)
        self.finish(row)


class VaryingRows(SharedRows):
    """Samples of any shapes: blocks of `autotune.data.records`, one after the other, and a table of their places."""

    def __init__(self, rows: int, *, limit_bytes: int, available: Callable[[], int]) -> None:
        super().__init__(rows, [16 * rows, limit_bytes], limit_bytes=limit_bytes, available=available)

    def _attach(self) -> None:
        super()._attach()
        self._table: npt.NDArray[np.int64] = self.region(2).view(np.int64).reshape(-1, 2)
        self._bytes = self.region(3).data

    def get(self, row: int) -> MaybeSample:
        """Give a fresh copy of a sample, or `ABSENT`."""
        if not self.holds(row):
            return ABSENT
        start, size = self._table[row].tolist()
        return unpack(self._bytes[start : start + size])

    def gather(self, rows: npt.NDArray[np.int64]) -> list[Any] | None:
        """Give the samples of a batch, one by one; None where one is missing."""
        return [self.get(int(row)) for row in rows] if self.holds_all(rows) else None

    def put(self, row: int, sample: Any) -> None:
        """Keep a sample.

        Raises:
            ArchiveError: It cannot be given back exactly.
            CapacityError: There is no room.
        """
        block = pack_sample(sample)
        start = self.claim(row, len(block))
        if start is None:
            return
        self._bytes[start : start + len(block)] = block
        self._table[row] = start, len(block)
        self.finish(row)
