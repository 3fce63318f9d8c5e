"""HDF5: samples of one layout as typed datasets that any HDF5 tool reads, others as blocks of bytes.

The library writes the file and tells where its datasets lie; their bytes are then read from a mapping of the
file. So no HDF5 handle exists while samples are read, and none is carried into a forked process.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from autotune.data.archives._base import (
    Manifest,
    Progress,
    check_form,
    check_staged,
    finish_manifest,
    finished_file,
    read_manifest,
    sized,
)
from autotune.data.archives.hdf5_writing import (
    CHUNK_BYTES,
    DATA_NAME,
    EXTENTS_NAME,
    LAYOUT_NAME,
    Hdf5Writer,
    leaf_name,
    stored_type,
)
from autotune.data.archives.production import Produced, produce
from autotune.data.batch_buffers import BatchBuffers
from autotune.data.extras import needed
from autotune.data.fixed_layout import ByteBlock, FixedLayout, row_of
from autotune.data.records import pack_parts, pack_sample, unpack
from autotune.data.samples import take_apart
from autotune.data.stages import apart, base_sample, read_stage
from autotune.errors import ArchiveDamagedError
from autotune.spec.config import StoredForm

_FILE_NAME = "samples.h5"
_ARRAY_KINDS = "biufcSUmM"


class Hdf5Format:
    """One HDF5 file: a dataset for each leaf where all samples share a layout, else blocks with their extents."""

    def build(
        self,
        source: Dataset[Any],
        directory: Path,
        *,
        stored: StoredForm = "decoded",
        progress: Progress | None = None,
        workers: int = 0,
    ) -> Manifest:
        """Store every sample of `source` in one file.

        Raises:
            ArchiveError: `encoded` is asked of a dataset without `read` and `decode`, or a sample holds
                what cannot be given back exactly.
            MissingExtraError: `h5py` is not installed.
        """
        check_form("hdf5", stored)
        check_staged(source, stored)
        h5py = needed("h5py", "archive 'hdf5'")
        count = sized(source)
        layout = FixedLayout.of(base_sample(apart(source), 0)) if stored == "decoded" else None
        encode = _parts if layout is None else partial(_row_or_block, layout)
        path = directory / _FILE_NAME
        with Hdf5Writer(h5py, path, count, layout) as writer:
            for sample in produce(source, encode, workers=workers, progress=progress):
                if sample.note:
                    writer.add_row(sample.data)
                else:
                    writer.add_block(sample.data)
        return finish_manifest(source, directory, form=("hdf5", stored), files={_FILE_NAME: finished_file(path)})

    def open(self, directory: Path) -> Dataset[Any]:
        """Open the file to see where the samples lie; their bytes are mapped at the first access.

        Raises:
            ArchiveDamagedError: The file is not whole, or is not one that `build` wrote.
            MissingExtraError: `h5py` is not installed.
        """
        h5py = needed("h5py", "archive 'hdf5'")
        return _open_file(h5py, directory / _FILE_NAME, read_manifest(directory).count)


class Hdf5Rows(Dataset[Any]):
    """Samples of one layout, a row of each dataset, as fresh writable copies."""

    def __init__(self, path: Path, count: int, layout: FixedLayout, offsets: Sequence[int]) -> None:
        self._file = _MappedFile(path)
        self._count = count
        self._layout = layout
        self._offsets = tuple(offsets)
        self._blocks: list[ByteBlock] | None = None
        self._buffers = BatchBuffers()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self._layout.row_sample(self._mapped(), _row(index, self._count))

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Give the samples of a whole batch, gathered at once."""
        rows = np.array([_row(index, self._count) for index in indices], dtype=np.int64)
        return self._layout.gather(self._mapped(), rows, self._buffers)

    def _mapped(self) -> list[ByteBlock]:
        if self._blocks is None:
            leaves = zip(self._offsets, self._layout.row_bytes, strict=True)
            self._blocks = [self._file.rows(offset, self._count, size) for offset, size in leaves]
        return self._blocks

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_blocks": None}


class Hdf5Blocks(Dataset[Any]):
    """Samples of differing layout, or tuples of original bytes, each a block of its own."""

    def __init__(self, path: Path, count: int, extents: int, data: _ChunkedData) -> None:
        self._file = _MappedFile(path)
        self._count = count
        self._extents_offset = extents
        self._data = data
        self._extents: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        row = _row(index, self._count)
        if self._extents is None:
            self._extents = self._file.rows(self._extents_offset, self._count, 16).view(np.int64)
        start, size = self._extents[row].tolist()
        if start < 0 or size <= 0 or start + size > self._data.size_bytes:
            raise _damaged(self._file.path, f"sample {row} would lie at byte {start} with {size} bytes")
        return unpack(self._block(start, size))

    def _block(self, start: int, size: int) -> memoryview:
        """Give the bytes of one block, without a copy where its chunks lie one after the other."""
        first, last = start // CHUNK_BYTES, (start + size - 1) // CHUNK_BYTES
        places = self._data.chunk_offsets[first : last + 1]
        whole = self._file.mapped()
        inside = start - first * CHUNK_BYTES
        if int(places[-1]) - int(places[0]) == (last - first) * CHUNK_BYTES:
            begin = int(places[0]) + inside
            return memoryview(whole[begin : begin + size])  # type: ignore[arg-type]  # numpy's types leave the buffer out
        joined = np.concatenate([whole[place : place + CHUNK_BYTES] for place in places.tolist()])
        return memoryview(joined[inside : inside + size])  # type: ignore[arg-type]  # as above

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_extents": None}


class _ChunkedData(NamedTuple):
    """Where the bytes of the blocks lie in the file."""

    size_bytes: int
    chunk_offsets: npt.NDArray[np.int64]


class _MappedFile:
    """A file mapped at the first access; a pickled copy maps it anew, a forked process has a mapping of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = path.stat().st_size
        self._whole: ByteBlock | None = None

    def mapped(self) -> ByteBlock:
        """Give all bytes of the file.

        Raises:
            ArchiveDamagedError: It is gone, or has another size than when it was opened.
        """
        if self._whole is None:
            try:
                whole = np.memmap(self.path, np.uint8, "r")
            except (OSError, ValueError) as error:
                raise _damaged(self.path, f"it cannot be mapped: {error}") from error
            if whole.size != self._size:
                raise _damaged(self.path, f"it must have {self._size} bytes, got {whole.size}")
            self._whole = whole.view(np.ndarray)
        return self._whole

    def rows(self, offset: int, count: int, row_bytes: int) -> ByteBlock:
        """Give a run of rows; that it lies inside the file was checked when the file was opened."""
        if not row_bytes:
            return np.empty((count, 0), np.uint8)
        return self.mapped()[offset : offset + count * row_bytes].reshape(count, row_bytes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_whole": None}


def _open_file(h5py: Any, path: Path, count: int) -> Hdf5Rows | Hdf5Blocks:
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _open_rows(file, path, count) if LAYOUT_NAME in file else _open_blocks(file, path, count)
    except (
        OSError,
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        AttributeError,
        StopIteration,
    ) as error:
        # What is raised depends on which part of the file is broken.
        raise _damaged(path, f"it cannot be opened: {error}") from error


def _open_rows(file: Any, path: Path, count: int) -> Hdf5Rows:
    text = _dataset(file, LAYOUT_NAME, np.dtype(np.uint8), file[LAYOUT_NAME].shape)
    _offset(text, path, text.size)
    skeleton, dtypes, shapes = json.loads(text[...].tobytes())
    layout = FixedLayout(skeleton, tuple(dtypes), tuple(tuple(shape) for shape in shapes))
    if any(np.dtype(dtype).kind not in _ARRAY_KINDS for dtype in dtypes):
        raise ValueError(f"its layout has arrays that none of ours has: {dtypes}")
    offsets = []
    for place, (dtype, shape, size) in enumerate(zip(layout.dtypes, layout.shapes, layout.row_bytes, strict=True)):
        kept, kept_shape = stored_type(np.dtype(dtype), shape)
        dataset = _dataset(file, leaf_name(place), kept, (count, *kept_shape))
        offsets.append(_offset(dataset, path, count * size))
    # A row is known to fit into the file by now; a broken structure fails here and not at some sample.
    layout.row_sample([np.zeros((1, size), np.uint8) for size in layout.row_bytes], 0)
    return Hdf5Rows(path, count, layout, offsets)


def _open_blocks(file: Any, path: Path, count: int) -> Hdf5Blocks:
    extents = _offset(_dataset(file, EXTENTS_NAME, np.dtype("<i8"), (count, 2)), path, count * 16)
    data = _dataset(file, DATA_NAME, np.dtype(np.uint8), file[DATA_NAME].shape)
    size = data.size
    if data.chunks != (CHUNK_BYTES,) or data.id.get_create_plist().get_nfilters():
        raise ValueError(f"its data must lie in plain chunks of {CHUNK_BYTES} bytes, got {data.chunks}")
    number, end = -(-size // CHUNK_BYTES), path.stat().st_size
    if number * CHUNK_BYTES > end:
        raise ValueError(f"its data must lie in the file, which has {end} bytes, got {size}")
    chunks = np.full(number, -1, dtype=np.int64)

    def note(chunk: Any) -> None:
        chunks[chunk.chunk_offset[0] // CHUNK_BYTES] = chunk.byte_offset

    data.id.chunk_iter(note)
    if number and (chunks.min() < 0 or chunks.max() + CHUNK_BYTES > end):
        raise ValueError("chunks of its data are missing")
    return Hdf5Blocks(path, count, extents, _ChunkedData(size, chunks))


def _dataset(file: Any, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Any:
    """Give a dataset of exactly this type and shape: nothing of variable length, no objects."""
    dataset = file[name]
    if dataset.dtype != dtype or dataset.dtype.hasobject or dataset.shape != shape:
        raise ValueError(f"{name} must be {dtype}{list(shape)}, got {dataset.dtype}{list(dataset.shape)}")
    return dataset


def _offset(dataset: Any, path: Path, size: int) -> int:
    """Give the byte of the file at which a dataset begins."""
    if not size:
        return 0
    offset = dataset.id.get_offset()
    if offset is None or dataset.is_virtual or dataset.external or offset + size > path.stat().st_size:
        raise ValueError(f"{dataset.name} must lie in the file in one piece of {size} bytes")
    return int(offset)


def _row(index: int, count: int) -> int:
    if not -count <= index < count:
        raise IndexError(f"index must be under {count}, got {index}")
    return int(index) % count


def _damaged(path: Path, what: str) -> ArchiveDamagedError:
    return ArchiveDamagedError(f"{path} is damaged: {what}; remove the archive and build it again")


def _row_or_block(layout: FixedLayout, source: Dataset[Any], index: int) -> Produced:
    """Give the leaves of a sample of this layout one after the other, else its block; the note tells which."""
    sample = base_sample(source, index)
    skeleton, leaves = take_apart(sample)
    if FixedLayout.of_parts(skeleton, leaves) != layout:
        return Produced(note=False, data=pack_sample(sample))
    return Produced(note=True, data=b"".join(row_of(leaf).data for leaf in leaves))


def _parts(source: Dataset[Any], index: int) -> Produced:
    return Produced(note=False, data=pack_parts(read_stage(source, index)))
