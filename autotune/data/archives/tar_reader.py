"""Samples read from tars by their index: any one at random, or many from front to back."""

from __future__ import annotations

import itertools
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from torch.utils.data import Dataset

from autotune.data.archives.compression import CODECS
from autotune.data.archives.npy_bytes import npy_array
from autotune.data.archives.tar_index import TarIndex
from autotune.data.samples import put_together
from autotune.errors import ArchiveDamagedError, ArchiveError, ArchiveMissingError
from autotune.spec.config import StoredForm
from autotune.units import KIB, MIB

_READ_BYTES = 4 * MIB
"""Bytes read at once from front to back."""
_ROWS = 4096
"""Rows of the index that are turned into Python numbers at once."""
_KEPT_BLOCK_BYTES = 64 * KIB
_KEPT_OPEN = 16
_SPAN_BYTES = 64 * KIB
"""Bytes that are read at once even where the members of a sample have others between them."""


class TarReader(Dataset[Any]):
    """Samples (`decoded`) or tuples of bytes (`encoded`) of an indexed archive.

    Args:
        files: The tars.
        index: Where the samples are.
        stored: What the members are.
        compression: Key of `autotune.data.archives.compression.CODECS`; None reads plain tars.
    """

    def __init__(
        self, files: Sequence[Path], index: TarIndex, *, stored: StoredForm, compression: str | None = None
    ) -> None:
        self.stored = stored
        self.index = index
        self.compression = compression
        self._files = ProcessFiles(files)
        self._kept: tuple[int, bytes] | None = None

    def __len__(self) -> int:
        return len(self.index.samples)

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be under {len(self)}, got {index}")
        first, count, skeleton, block = self.index.samples[index].tolist()
        extents = self.index.members[first : first + count].tolist()
        if self.compression is not None:
            return self._rebuild(memoryview(self._inflated(block)), extents, skeleton)
        if not extents:
            return self._rebuild(memoryview(b""), extents, skeleton)
        file, offset, _, _ = self.index.blocks[block].tolist()
        start, span = extents[0][0], sum(extents[-1]) - extents[0][0]
        if len(extents) > 1 and span > _SPAN_BYTES and span > 2 * sum(size for _, size in extents):
            return self._gathered(file, offset, extents, skeleton)
        data = self._files.read(file, offset + start, span)
        return self._rebuild(data, [(place - start, size) for place, size in extents], skeleton)

    def block(self, index: int) -> bytes:
        """Give the inflated block that a sample lies in: its members with their headers, and maybe others."""
        return self._inflated(int(self.index.samples[index, 3]))

    def extents(self, index: int) -> list[tuple[int, int]]:
        """Give offset inside that block and size of each member of a sample."""
        first, count = self.index.samples[index, :2].tolist()
        return [(offset, size) for offset, size in self.index.members[first : first + count].tolist()]

    def stream(self, first: int, stop: int) -> Iterator[Any]:
        """Give the samples of a range in order, read in large pieces."""
        if self.index.notes.get("scattered"):
            yield from (self[index] for index in range(first, stop))
            return
        for start in range(first, stop, _ROWS):
            rows = self.index.samples[start : min(stop, start + _ROWS)].tolist()
            blocks = self._read_through(rows[0][3], rows[-1][3] + 1)
            number, data = -1, memoryview(b"")
            for member, count, skeleton, block in rows:
                while number < block:
                    number, data = next(blocks)
                extents = self.index.members[member : member + count].tolist()
                yield self._rebuild(data, extents, skeleton, own=True)

    def range_bytes(self, first: int, stop: int) -> int:
        """Tell how many inflated bytes the members of a range of samples have."""
        if stop <= first:
            return 0
        start, end = int(self.index.samples[first, 0]), int(self.index.samples[stop - 1, :2].sum())
        return int(self.index.members[start:end, 1].sum())

    def _read_through(self, first: int, stop: int) -> Iterator[tuple[int, memoryview]]:
        """Give blocks in order, inflated."""
        while first < stop:
            rows = self.index.blocks[first : min(stop, first + _ROWS)].tolist()
            file, start, end, count = rows[0][0], rows[0][1], rows[0][1], 0
            for row in rows:
                if row[0] != file or row[1] != end or (count and end + row[2] - start > _READ_BYTES):
                    break
                end += row[2]
                count += 1
            data = self._files.read(file, start, end - start)
            for number in range(count):
                _, offset, size, inflated = rows[number]
                block = data[offset - start : offset - start + size]
                yield first + number, block if self.compression is None else self._inflate(block, inflated)
            first += count

    def _inflated(self, block: int) -> bytes:
        """Give one block; the last small one is kept, as its neighbours are often next."""
        kept = self._kept
        if kept is not None and kept[0] == block:
            return kept[1]
        file, offset, size, inflated = self.index.blocks[block].tolist()
        data = self._files.read(file, offset, size)
        whole = bytes(data) if self.compression is None else bytes(self._inflate(data, inflated))
        if len(whole) <= _KEPT_BLOCK_BYTES:
            self._kept = (block, whole)
        return whole

    def _inflate(self, data: memoryview, inflated: int) -> memoryview:
        try:
            return memoryview(CODECS[self.compression or ""].inflate(data, inflated))
        except ArchiveDamagedError as error:
            raise ArchiveDamagedError(f"{self._files.paths[0]}: {error}; build the archive anew") from error

    def _gathered(self, file: int, offset: int, extents: list[Any], skeleton: int) -> Any:
        """Read members that lie far apart, one by one."""
        pieces = [self._files.read(file, offset + place, size) for place, size in extents]
        ends = itertools.accumulate((len(piece) for piece in pieces), initial=0)
        moved = [(end, len(piece)) for end, piece in zip(ends, pieces, strict=False)]
        return self._rebuild(memoryview(bytearray().join(pieces)), moved, skeleton)

    def _rebuild(self, data: memoryview, extents: list[Any], skeleton: int, *, own: bool = False) -> Any:
        if self.stored == "encoded":
            return tuple(bytes(data[offset : offset + size]) for offset, size in extents)
        try:
            leaves = [npy_array(data[offset : offset + size], own=own) for offset, size in extents]
            return put_together(self.index.trees[skeleton], leaves)
        except ArchiveError as error:
            raise type(error)(f"{self._files.paths[0]}: {error}") from error
        except (LookupError, TypeError, ValueError, RuntimeError, RecursionError, StopIteration) as error:
            raise ArchiveDamagedError(
                f"{self._files.paths[0]}: a sample has another structure than its index says: {error!r}"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


class ProcessFiles:
    """Files read at offsets, opened in each process anew, and a few kept open.

    Args:
        paths: The files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._open: OrderedDict[int, BinaryIO] = OrderedDict()
        self._process = os.getpid()

    def read(self, number: int, offset: int, size: int) -> memoryview:
        """Read bytes into fresh memory.

        Raises:
            ArchiveDamagedError: The file ends before.
            ArchiveMissingError: It was removed before this process opened it.
        """
        file = self._opened(number)
        view = memoryview(bytearray(size))
        done = 0
        while done < size:
            # The file object is held here, so another thread that lets go of it does not close it.
            got = os.preadv(file.fileno(), [view[done:]], offset + done)
            if not got:
                raise ArchiveDamagedError(
                    f"{self.paths[number]} ends before byte {offset + size}; build the archive anew"
                )
            done += got
        return view

    def _opened(self, number: int) -> BinaryIO:
        if self._process != os.getpid():
            self._open = OrderedDict()
            self._process = os.getpid()
        file = self._open.get(number)
        if file is None:
            try:
                file = self.paths[number].open("rb", buffering=0)
            except FileNotFoundError as error:
                raise ArchiveMissingError(f"{self.paths[number]} was removed since it was opened") from error
            self._open[number] = file
            if len(self._open) > _KEPT_OPEN:
                self._open.popitem(last=False)
        return file

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        ProcessFiles.__init__(self, state["paths"])
