"""One shard written and checked; and a source that is watched while it is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from autotune.data.archives._base import HashedFile, StoredFile
from autotune.data.archives.shard_folder import ShardFolder, WrittenShard, sha256_of
from autotune.data.archives.shard_plan import ShardPlan
from autotune.data.archives.tar_index import IndexBuilder, IndexedBlock
from autotune.data.archives.tar_writer import append_members, end_of_tar, stored_parts
from autotune.data.fingerprint import source_fingerprint
from autotune.errors import ArchiveDamagedError, ArchiveStaleError

_WATCHED_SHARE = 0.05
"""Most of the time that is spent on looking whether the source has changed, which takes long for millions of files."""


class SourceWatch:
    """Notices a source that changes while shards of it are written.

    Args:
        source: The dataset, of which a copy is read, so that its fingerprint stays as it is.
        plan: Tells the fingerprint that it should have.
    """

    def __init__(self, source: Dataset[Any], plan: ShardPlan) -> None:
        self._source = source
        self._plan = plan
        self._checked_s = time.monotonic()
        self._cost_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether a look takes a small share of the time that has passed since the last one."""
        return time.monotonic() - self._checked_s >= self._cost_s / _WATCHED_SHARE

    def check(self) -> None:
        """Look whether the source is still the same.

        Raises:
            ArchiveStaleError: It is not; shards that were read since the last look must not be kept.
        """
        started_s = time.monotonic()
        found = source_fingerprint(self._source)
        if found != self._plan.fingerprint:
            raise ArchiveStaleError(
                "the source changed while shards of it were written: its fingerprint was "
                f"{self._plan.fingerprint} and is {found}; build the archive again once nothing changes it any more"
            )
        self._checked_s = time.monotonic()
        self._cost_s = self._checked_s - started_s


def write_shard(source: Dataset[Any], folder: ShardFolder, number: int, told: Callable[[], None]) -> WrittenShard:
    """Write one shard under a temporary name, safe on disk and read back; nothing is left of one that fails.

    Args:
        source: The dataset, which is read in this process.
        folder: Where the archive is built.
        number: Number of the shard.
        told: Called after each sample.

    Raises:
        ArchiveError: A sample cannot be stored.
        ArchiveDamagedError: The disk gives other bytes than were written.
    """
    started_s, part = time.monotonic(), folder.part(number)
    try:
        with HashedFile(part) as file:
            index = IndexBuilder()
            for block in _blocks(source, folder.plan, number):
                index.add(0, file.size_bytes, block.entry)
                file.write(block.data)
                told()
            file.write(end_of_tar(None))
        _check_written(part, file.entry)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    return WrittenShard(number, part, file.entry, index.finish(), time.monotonic() - started_s)


class _Block(NamedTuple):
    """One sample as a tar has it, headers and all."""

    entry: IndexedBlock
    data: bytearray


def _blocks(source: Dataset[Any], plan: ShardPlan, number: int) -> Iterator[_Block]:
    parts = stored_parts(plan.stored)
    for place in plan.places(number):
        data = bytearray()
        sample = append_members(data, parts(source, place))
        yield _Block(IndexedBlock(len(data), len(data), [sample]), data)


def _check_written(path: Path, entry: StoredFile) -> None:
    """Read a file back, as disks and network file systems lose writes without saying so."""
    if sha256_of(path) != entry.sha256:
        raise ArchiveDamagedError(f"{path} does not hold what was written there; check the disk, and build again")
