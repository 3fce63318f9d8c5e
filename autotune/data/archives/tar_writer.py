"""Samples as members of a tar, in blocks that are compressed on their own."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch.utils.data import Dataset

from autotune.data.archives._base import Progress, sized
from autotune.data.archives.compression import CODECS
from autotune.data.archives.npy_bytes import npy_bytes
from autotune.data.archives.production import Produced, produce
from autotune.data.archives.tar_index import NO_LEAVES, IndexedBlock, IndexedSample
from autotune.data.samples import take_apart
from autotune.data.stages import apart, base_sample, leaves_of, read_stage
from autotune.spec.config import StoredForm
from autotune.units import KIB

BLOCK_BYTES = 16 * KIB
"""Samples share a compressed block until it has this size: a sample of 100 bytes takes 1 KiB as a member, and
alone hardly compresses; inflating 16 KiB takes 30 to 60 microseconds, less than opening a file."""
_TOGETHER = 16
"""Samples that may share a block, so that one of a few bytes costs at most this many."""
_PLAIN_NAME = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)

Parts = tuple[str, list[tuple[str, bytes]]]
"""Skeleton of a sample, and name and bytes of each member."""
TakeParts = Callable[[Any, int], Parts]


def stored_parts(stored: StoredForm) -> TakeParts:
    """Give what turns a sample into members of the stored form; it can be pickled."""
    return _encoded if stored == "encoded" else _decoded


def written_blocks(
    source: Dataset[Any],
    parts: TakeParts,
    *,
    compression: str | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Iterator[tuple[IndexedBlock, bytes | memoryview]]:
    """Give the blocks of a tar in order, made by several processes.

    Args:
        source: A map-style dataset.
        parts: Turns a sample into members.
        compression: Key of `CODECS`; None leaves blocks as they are, one a sample.
        workers: Processes; 0 works in this one.
        progress: Told after each sample how many are done.
    """
    count = sized(source)
    together = 1
    if compression is not None:
        append_members(first := bytearray(), parts(apart(source), 0))
        together = max(1, min(_TOGETHER, BLOCK_BYTES // max(1, len(first))))
    units = _Units(source, together)
    done = 0
    for unit in produce(units, partial(_encode, parts, compression), workers=workers):
        start = 0
        for block in unit.note:
            yield block, memoryview(unit.data)[start : start + block.stored_bytes]
            start += block.stored_bytes
            for _ in block.samples:
                done += 1
                if progress is not None:
                    progress(done, count)


def append_members(block: bytearray, sample: Parts) -> IndexedSample:
    """Append the members of one sample to a block, and tell where their bytes are."""
    skeleton, parts = sample
    extents = []
    for name, data in parts:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        block += member.tobuf(tarfile.GNU_FORMAT)
        extents.append((len(block), len(data)))
        block += data
        block += bytes(-len(data) % tarfile.BLOCKSIZE)
    return IndexedSample(skeleton, extents)


def pack_block(data: bytes | bytearray, compression: str | None) -> bytes:
    """Compress a block, where there is a compression."""
    return bytes(data) if compression is None else CODECS[compression].compress(data)


def end_of_tar(compression: str | None) -> bytes:
    """Give what ends a tar."""
    return pack_block(bytes(2 * tarfile.BLOCKSIZE), compression)


class _Units(Dataset[range]):
    """Runs of samples that one process works on at a time."""

    def __init__(self, source: Dataset[Any], together: int) -> None:
        self.source = source
        self.count = sized(source)
        self._starts = range(0, self.count, together)

    def __len__(self) -> int:
        return len(self._starts)

    def __copy__(self) -> _Units:
        # what is probed before workers are forked is a copy, down to the dataset that opens files
        made = object.__new__(_Units)
        made.__dict__.update({**self.__dict__, "source": apart(self.source)})
        return made

    def __getitem__(self, number: int) -> range:
        start = self._starts[number]
        return range(start, min(self.count, start + self._starts.step))


def _encode(parts: TakeParts, compression: str | None, units: Any, number: int) -> Produced:
    """Turn a run of samples into blocks; the note says what is in them."""
    blocks: list[IndexedBlock] = []
    stored: list[bytes] = []
    waiting, samples = bytearray(), []
    places: range = units[number]
    for index in places:
        samples.append(append_members(waiting, parts(units.source, index)))
        if len(waiting) >= BLOCK_BYTES or index == places[-1]:
            stored.append(pack_block(waiting, compression))
            blocks.append(IndexedBlock(len(stored[-1]), len(waiting), samples))
            waiting, samples = bytearray(), []
    return Produced(blocks, b"".join(stored))


def _encoded(source: Any, index: int) -> Parts:
    raw = read_stage(source, index)
    names = tuple(getattr(leaves_of(source)[0], "part_names", ()))
    plain = all(isinstance(name, str) and _PLAIN_NAME.fullmatch(name) for name in names)
    # Readers of webdataset shards take names without regard to case.
    if not plain or len({name.lower() for name in names}) != len(raw) or len(names) != len(raw):
        names = tuple(f"{place}.bin" for place in range(len(raw)))
    return NO_LEAVES, [(f"{index:08d}.{name}", data) for name, data in zip(names, raw, strict=True)]


def _decoded(source: Any, index: int) -> Parts:
    skeleton, leaves = take_apart(base_sample(source, index))
    return skeleton, [(f"{index:08d}.{place}.npy", npy_bytes(leaf)) for place, leaf in enumerate(leaves)]
