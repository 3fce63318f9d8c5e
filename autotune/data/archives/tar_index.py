"""The index of a tar: where each sample's members lie, in one small file."""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from autotune.data.samples import Skeleton
from autotune.errors import ArchiveDamagedError

Table = npt.NDArray[np.int64]

_HEAD = struct.Struct("<8sQ")
_MAGIC = b"ATINDEX1"
_COLUMNS = {"blocks": 4, "members": 2, "samples": 4}
_LARGEST = (2**62, 2**40, 2**40)
"""No number in the three tables is above; so their sums stay within 64 bits."""
NO_LEAVES = '["none"]'
"""Skeleton of samples that are tuples of bytes."""


class IndexedSample(NamedTuple):
    """One sample inside its block.

    Attributes:
        skeleton: Its structure, as JSON text.
        extents: Offset inside the inflated block and size of each member's data.
    """

    skeleton: str
    extents: Sequence[tuple[int, int]]


class IndexedBlock(NamedTuple):
    """Some samples that are stored together.

    Attributes:
        stored_bytes: Size in the file.
        inflated_bytes: Size of the members with their headers; the same where nothing is compressed.
        samples: The samples in order.
    """

    stored_bytes: int
    inflated_bytes: int
    samples: Sequence[IndexedSample]


@dataclass(frozen=True)
class TarIndex:
    """Where the samples of an archive are.

    Attributes:
        blocks: For each block: file, offset, size there, inflated size.
        members: For each member: offset of its data inside the inflated block, and size.
        samples: For each sample: first member, number of members, skeleton, block.
        skeletons: Structures of samples, as JSON texts.
        notes: What else is known of the archive; plain values.
    """

    blocks: Table
    members: Table
    samples: Table
    skeletons: tuple[str, ...]
    notes: Mapping[str, Any]

    @cached_property
    def trees(self) -> list[Skeleton]:
        """The skeletons, parsed."""
        return [json.loads(text) for text in self.skeletons]

    def file_of(self, sample: int) -> int:
        """Give the number of the file that a sample lies in."""
        return int(self.blocks[self.samples[sample, 3], 0])

    def to_bytes(self) -> bytes:
        """Write the index as one file."""
        tables = {name: getattr(self, name) for name in _COLUMNS}
        counts = {name: len(table) for name, table in tables.items()}
        header = json.dumps({"counts": counts, "skeletons": self.skeletons, "notes": self.notes}).encode()
        pieces = [table.astype("<i8", copy=False).tobytes() for table in tables.values()]
        return b"".join([_HEAD.pack(_MAGIC, len(header)), header, *pieces])

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read an index.

        Raises:
            ArchiveDamagedError: It is none, or its tables contradict each other.
        """
        try:
            data = path.read_bytes()
            magic, length = _HEAD.unpack_from(data)
            if magic != _MAGIC:
                raise ArchiveDamagedError(f"{path} is no index of an archive")
            header = json.loads(data[_HEAD.size : _HEAD.size + length])
            tables, start = {}, _HEAD.size + length
            for name, columns in _COLUMNS.items():
                count = int(header["counts"][name]) * columns
                tables[name] = np.frombuffer(data, "<i8", count, start).astype(np.int64).reshape(-1, columns)
                start += 8 * count
            index = cls(**tables, skeletons=tuple(header["skeletons"]), notes=header["notes"])
            if start != len(data) or not index._agrees() or not all(isinstance(tree, list) for tree in index.trees):
                raise ArchiveDamagedError(f"the index {path} contradicts itself; build the archive anew")
        except (OSError, ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
            raise ArchiveDamagedError(f"the index {path} cannot be read: {error}") from error
        return index

    def check_files(self, sizes: Sequence[int]) -> None:
        """Refuse an index that points outside the files.

        Raises:
            ArchiveDamagedError: It does.
        """
        files, offsets, stored, _ = self.blocks.T
        known = np.asarray(sizes, dtype=np.int64)
        if len(self.blocks) and (files.max() >= len(known) or (offsets > known[files] - stored).any()):
            raise ArchiveDamagedError("the index points outside its archive; build the archive anew")

    def _agrees(self) -> bool:
        """Tell whether every number points to something that is there, and each sample has its members in order."""
        tables = (self.blocks, self.members, self.samples)
        if any(
            len(table) and (table.min() < 0 or table.max() > limit)
            for table, limit in zip(tables, _LARGEST, strict=True)
        ):
            return False
        first, count, skeleton, block = self.samples.T
        if not len(self.samples) or (first != np.cumsum(count) - count).any() or int(count.sum()) != len(self.members):
            return not len(self.samples) and not len(self.members)
        if skeleton.max() >= len(self.skeletons) or block.max() >= len(self.blocks) or (np.diff(block) < 0).any():
            return False
        owner = np.repeat(np.arange(len(count)), count)
        if ((owner[1:] == owner[:-1]) & (self.members[1:, 0] < self.members[:-1].sum(axis=1))).any():
            return False
        room = self.blocks[block, 3]
        inside = self.members.sum(axis=1) <= np.repeat(room, count)
        held = np.add.reduceat(self.members[:, 1], first[count > 0]) if len(self.members) else np.empty(0)
        return bool(inside.all() and (held <= room[count > 0]).all())


class IndexBuilder:
    """Collects the index while an archive is written."""

    def __init__(self) -> None:
        self._blocks = array("q")
        self._members = array("q")
        self._samples = array("q")
        self._skeletons: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._samples) // 4

    def add(self, file: int, offset: int, block: IndexedBlock) -> None:
        """Add a block that was written to a file at an offset."""
        number = len(self._blocks) // 4
        self._blocks.extend((file, offset, block.stored_bytes, block.inflated_bytes))
        for sample in block.samples:
            place = self._skeletons.setdefault(sample.skeleton, len(self._skeletons))
            self._samples.extend((len(self._members) // 2, len(sample.extents), place, number))
            for extent in sample.extents:
                self._members.extend(extent)

    def finish(self, notes: Mapping[str, Any] | None = None) -> TarIndex:
        """Give the index of what was added."""
        blocks, members, samples = (
            np.asarray(table, dtype=np.int64).reshape(-1, columns)
            for table, columns in ((self._blocks, 4), (self._members, 2), (self._samples, 4))
        )
        return TarIndex(blocks, members, samples, tuple(self._skeletons), notes or {})
