"""How samples are written into an HDF5 file: rows as long as they share a layout, blocks from then on."""

from __future__ import annotations

import json
from array import array
from itertools import accumulate, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from autotune.data.fixed_layout import ByteBlock, FixedLayout
from autotune.data.records import pack_sample
from autotune.units import MIB

LAYOUT_NAME = "layout"
DATA_NAME = "data"
EXTENTS_NAME = "extents"
CHUNK_BYTES = MIB
"""Unit in which the bytes of blocks are added to a file whose size is not known before."""

_PENDING_BYTES = MIB
_RANK_MAX = 31
"""HDF5 has 32 dimensions at most, one of which counts the samples."""
_LIBRARY_VERSIONS = ("v110", "v110")
"""Oldest file version whose metadata all have checksums; every HDF5 since 2016 reads it."""


def leaf_name(place: int) -> str:
    """Give the name of the dataset that holds one leaf of every sample."""
    return f"leaf_{place:02d}"


def stored_type(dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Give type and shape under which HDF5 keeps a leaf: its own where that is exact, else its bytes."""
    if dtype.kind in "biufcS" and dtype.char not in "gG" and dtype.itemsize and len(shape) <= _RANK_MAX:
        return dtype, shape
    return np.dtype(np.uint8), (dtype.itemsize * int(np.prod(shape, dtype=np.int64)),)


class Hdf5Writer:
    """Writes one file from front to back; equal samples give equal bytes.

    Args:
        h5py: The library.
        path: The file.
        count: Number of samples that will be added.
        layout: Layout of the rows; None writes blocks from the start.
    """

    def __init__(self, h5py: Any, path: Path, count: int, layout: FixedLayout | None) -> None:
        self._h5py = h5py
        self._path = path
        self._count = count
        self._layout = layout
        self._file = self._create(path)
        self._store: _Store = _BlockStore(self._file, count) if layout is None else _RowStore(self._file, count, layout)

    def add_row(self, data: bytes | memoryview) -> None:
        """Append a sample of the layout: the bytes of its leaves, one after the other."""
        if isinstance(self._store, _BlockStore):
            data = self._block_of(data)
        self._store.add(data)

    def add_block(self, data: bytes | memoryview) -> None:
        """Append a sample of another layout, or original bytes, as one block."""
        if isinstance(self._store, _RowStore):
            self._turn_into_blocks(self._store)
        self._store.add(data)

    def _turn_into_blocks(self, rows: _RowStore) -> None:
        """Write the file anew where a later sample turns out to differ."""
        rows.finish()
        self._file.close()
        aside = self._path.with_name(f"{self._path.name}.rows")
        self._path.rename(aside)
        self._file = self._create(self._path)
        self._store = _BlockStore(self._file, self._count)
        with self._h5py.File(aside, "r", locking=False) as file:
            for row in range(rows.done):
                self._store.add(self._block_of(rows.read(file, row)))
        aside.unlink()

    def _block_of(self, row: bytes | memoryview) -> bytes:
        layout = self._layout
        if layout is None:
            raise AssertionError("rows are added to a writer that has a layout")
        whole = np.frombuffer(row, dtype=np.uint8)
        blocks: list[ByteBlock] = [
            whole[start:end].reshape(1, -1) for start, end in pairwise(accumulate(layout.row_bytes, initial=0))
        ]
        return pack_sample(layout.row_sample(blocks, 0))

    def _create(self, path: Path) -> Any:
        return self._h5py.File(path, "w-", libver=_LIBRARY_VERSIONS, locking=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._store.finish()
        finally:
            self._file.close()


class _Store(Protocol):
    """One way to keep samples in a file."""

    def add(self, data: bytes | memoryview) -> None:
        """Append one sample."""

    def finish(self) -> None:
        """Write what is left."""


class _RowStore:
    """A typed dataset for each leaf, a row for each sample."""

    def __init__(self, file: Any, count: int, layout: FixedLayout) -> None:
        self.done = 0
        self._written = 0
        self._row_bytes = layout.row_bytes
        self._pending = [bytearray() for _ in layout.row_bytes]
        text = json.dumps([layout.skeleton, layout.dtypes, layout.shapes]).encode()
        file.create_dataset(LAYOUT_NAME, data=np.frombuffer(text, dtype=np.uint8))
        kept = [stored_type(np.dtype(dtype), shape) for dtype, shape in zip(layout.dtypes, layout.shapes, strict=True)]
        self._datasets = [
            file.create_dataset(leaf_name(place), shape=(count, *shape), dtype=dtype)
            for place, (dtype, shape) in enumerate(kept)
        ]

    def add(self, data: bytes | memoryview) -> None:
        start = 0
        for pending, size in zip(self._pending, self._row_bytes, strict=True):
            pending.extend(data[start : start + size])
            start += size
        self.done += 1
        if sum(len(pending) for pending in self._pending) >= _PENDING_BYTES:
            self.finish()

    def finish(self) -> None:
        for dataset, pending, size in zip(self._datasets, self._pending, self._row_bytes, strict=True):
            if size and pending:
                shape = (self.done - self._written, *dataset.shape[1:])
                dataset[self._written : self.done] = np.frombuffer(pending, dtype=dataset.dtype).reshape(shape)
        self._pending = [bytearray() for _ in self._pending]
        self._written = self.done

    def read(self, file: Any, row: int) -> bytes:
        """Give a row as it was added."""
        leaves = [file[leaf_name(place)][row : row + 1] for place in range(len(self._row_bytes))]
        return b"".join(leaf.tobytes() for leaf in leaves)


class _BlockStore:
    """All blocks one after the other in one dataset, and where each begins and how long it is in another."""

    def __init__(self, file: Any, count: int) -> None:
        self._file = file
        self._count = count
        self._extents = array("q")
        self._pending = bytearray()
        self._size = 0
        self._data = file.create_dataset(DATA_NAME, shape=(0,), maxshape=(None,), chunks=(CHUNK_BYTES,), dtype=np.uint8)

    def add(self, data: bytes | memoryview) -> None:
        self._extents.extend((self._size, len(data)))
        self._size += len(data)
        self._pending += data
        whole = len(self._pending) // CHUNK_BYTES * CHUNK_BYTES
        view = memoryview(bytes(self._pending[:whole]))
        del self._pending[:whole]
        start = self._size - len(self._pending) - whole
        for place in range(0, whole, CHUNK_BYTES):
            self._write(start + place, view[place : place + CHUNK_BYTES])

    def finish(self) -> None:
        if self._pending:
            padded = self._pending.ljust(CHUNK_BYTES, b"\0")
            self._write(self._size - len(self._pending), memoryview(padded))
            self._pending = bytearray()
        self._data.resize((self._size,))
        extents = np.asarray(self._extents, dtype="<i8").reshape(self._count, 2)
        self._file.create_dataset(EXTENTS_NAME, data=extents)

    def _write(self, start: int, chunk: memoryview) -> None:
        """Hand over one chunk as it will lie in the file."""
        self._data.resize((start + CHUNK_BYTES,))
        self._data.id.write_direct_chunk((start,), bytes(chunk))
