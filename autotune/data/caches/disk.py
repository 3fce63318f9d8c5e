"""Samples on a local disk: kept over restarts, and shared by all jobs on the machine."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from autotune.data.archives._base import sized
from autotune.data.caches._base import ABSENT, CachedDataset, MaybeSample
from autotune.data.caches.folders import FolderLock, cached_bytes, prune
from autotune.data.caches.planning import Look, check_fraction, look_at, plan_rows
from autotune.data.caches.values import FILE_FROM_BYTES, ValueStore
from autotune.data.facts import samples_equal
from autotune.data.fingerprint import source_fingerprint, why_unrecognisable
from autotune.data.randomness import probe_places
from autotune.data.records import pack_sample, unpack
from autotune.data.stages import apart, base_sample, leaves_of
from autotune.data.wrapped import WrappedDataset
from autotune.errors import ArchiveDamagedError, ArchiveError, ArchiveStaleError, SpecError
from autotune.units import KIB, format_bytes

_logger = logging.getLogger(__name__)

_FREE_SHARE = 0.95
"""Share of the free disk that a cache may take: other programs write too."""
_DATABASE_BYTES = 64 * KIB
"""What an empty database takes."""
_ENTRY_BYTES = 256
"""What the database notes of each sample, about."""
_PAGE_BYTES = 4096
_GROWTH_BYTES = 2 * _PAGE_BYTES
"""What one more entry may add to the indexes of the database."""
_COMPARED = 3
_UNREADABLE = (ArchiveDamagedError, OSError)


class DiskCacheMode:
    """Keeps samples in a folder of files and a SQLite database (`diskcache`), as blocks with a checksum."""

    def wrap(
        self,
        dataset: Dataset[Any],
        *,
        fraction: float | None = 1.0,
        directory: Path | None = None,
        limit_bytes: int | None = None,
        device: torch.device | None = None,  # noqa: ARG002
    ) -> DiskCache:
        """Open the cache of a dataset in `<directory>/<fingerprint>`, or begin one.

        A few samples of a cache that is there are compared with the source. Where one differs, the cache
        is emptied with a warning, as filling it again costs only time; while another job reads it, it is
        refused.

        Args:
            dataset: What is read on a miss.
            fraction: Share of the samples to keep; None is the largest that fits.
            directory: Folder of all disk caches.
            limit_bytes: Most bytes of all of them together: those that were not opened for longest make room
                first. None is what the disk has free.
            device: Of no effect here.

        Raises:
            ArchiveError: The source has no fingerprint, or samples cannot be given back exactly.
            ArchiveStaleError: The cache holds other samples than the source, and another job uses it.
            CapacityError: The share of the samples does not fit.
            MissingExtraError: `diskcache` is not installed.
            RandomSamplesError: Samples are random and not told apart in stages.
        """
        check_fraction(fraction)
        if directory is None:
            raise SpecError("cache 'disk' needs a folder of caches, got directory=None")
        sized(dataset)
        store = ValueStore(directory.absolute() / cache_name(dataset))
        look = look_at(dataset)
        look = replace(look, sample_bytes=_stored_bytes(look.packed_bytes))
        directory.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(store.directory)
        lock.share()
        _open_sound(dataset, store, lock)
        limit = _room(store, look, fraction, limit_bytes)
        rows = plan_rows(look, fraction, max(0, limit - _DATABASE_BYTES), name="disk")
        return DiskCache(dataset, look, rows, store=store, lock=lock, limit_bytes=limit)


class DiskCache(CachedDataset):
    """A dataset with a share of its samples in a folder.

    A stored sample that fails its check is read from the source and stored anew. When the disk or the
    limit is full, storing stops with one warning. Copies and pickles use the same folder.
    """

    def __init__(
        self,
        source: Dataset[Any],
        look: Look,
        rows: int,
        *,
        store: ValueStore,
        lock: FolderLock,
        limit_bytes: int,
    ) -> None:
        super().__init__(source, rows=rows, planned_bytes=_DATABASE_BYTES + rows * look.sample_bytes, name="disk")
        self._store = store
        self._lock: FolderLock | None = lock
        self._limit_bytes = limit_bytes
        self._told_unreadable = False
        self._store.close()

    @property
    def directory(self) -> Path:
        """Folder of the cache."""
        return self._store.directory

    @property
    def filled(self) -> int:
        """Samples with a place that are in the cache, of earlier runs too."""
        count = len(self)
        try:
            return sum(1 for index in self._store.indices() if 0 <= index < count and self._rows[index] >= 0)
        except _UNREADABLE:
            return 0

    @property
    def used_bytes(self) -> int:
        """Bytes of the folder's files and database."""
        try:
            return self._store.size_bytes
        except _UNREADABLE:
            return 0

    def fill(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read every sample that has a place and is not there yet, as far as there is room."""
        super().fill(progress)
        self._store.close()  # so that workers are forked without an open database

    def holds(self, index: int, row: int) -> bool:  # noqa: ARG002
        """Tell whether a sample that has a place is there; what it is worth, reading it tells."""
        self._share()
        try:
            return index in self._store
        except _UNREADABLE:
            return False

    def fetch(self, index: int, row: int) -> MaybeSample:  # noqa: ARG002
        """Read a sample and check it; `ABSENT` where it is not there or cannot be read."""
        self._share()
        try:
            block = self._store.get(index)
            return ABSENT if block is None else unpack(block, check=True)
        except _UNREADABLE as error:
            if not self._told_unreadable:
                self._told_unreadable = True
                _logger.warning("Sample %d, and others like it, are read from the dataset again: %s", index, error)
            return ABSENT

    def store(self, index: int, row: int, sample: Any) -> None:  # noqa: ARG002
        """Write a sample, unless there is no more room."""
        self._share()
        try:
            block = pack_sample(sample)
        except ArchiveError as error:
            self.leave_out(index, error)
            return
        try:
            if self._store.size_bytes + _stored_bytes(len(block)) + _GROWTH_BYTES > self._limit_bytes:
                self.stop(f"{format_bytes(self._limit_bytes)} may be used")
            else:
                self._store.put(index, block)
        except _UNREADABLE as error:
            self.stop(f"writing failed: {error}")

    def _share(self) -> None:
        """Keep the folder from being removed, in a process that was handed this object as a pickle too."""
        if self._lock is None:
            lock = FolderLock(self.directory)
            lock.share()
            self._lock = lock

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_lock": None}


def cache_name(dataset: Dataset[Any]) -> str:
    """Give the name of a dataset's folder: its source's fingerprint, and the decoder where one was chosen.

    An archive below the cache leaves it as it is, since it gives the same samples.

    Raises:
        ArchiveError: The source has no fingerprint.
    """
    source: Any = dataset
    while isinstance(source, WrappedDataset):
        source = source.source
    fingerprint = source_fingerprint(source)
    if fingerprint is None:
        raise ArchiveError(
            f"a change of the source could not be noticed, so nothing is stored: {why_unrecognisable(source)}, or use "
            "cache 'memory'"
        )
    decoders = sorted({str(name) for leaf in leaves_of(source) if (name := getattr(leaf, "decoder", None))})
    named = "-".join("".join(sign if sign.isalnum() else "_" for sign in name) for name in decoders)
    return f"{fingerprint}-{named}" if named else fingerprint


def _open_sound(dataset: Dataset[Any], store: ValueStore, lock: FolderLock) -> None:
    """Open a cache whose samples are those of the source, emptied where they are not."""
    try:
        store.open()
        different = _different_sample(dataset, store)
    except OSError as error:
        raise ArchiveError(f"the disk cache cannot be opened: {error}; use cache 'memory'") from error
    except ArchiveDamagedError as error:
        reason: str = str(error)
    else:
        if different is None:
            return
        reason = (
            f"sample {different} of {store.directory} differs from its source, although files and settings look "
            "unchanged"
        )
    store.close()
    if not lock.take():
        raise ArchiveStaleError(f"{reason}, and another job uses the cache; end it, and the cache is filled again")
    _logger.warning("The disk cache is emptied and will be filled again: %s", reason)
    shutil.rmtree(store.directory)
    try:
        store.open()
    except OSError as error:
        raise ArchiveError(f"the disk cache cannot be begun: {error}; use cache 'memory'") from error
    lock.share()


def _different_sample(dataset: Dataset[Any], store: ValueStore) -> int | None:
    """Compare a few stored samples with the source; damaged ones are found when they are read."""
    count = len(dataset)  # type: ignore[arg-type]  # map-style
    stored = [index for index in store.indices() if index >= 0]
    if not stored:
        return None
    beyond = max(stored)
    if beyond >= count:
        return beyond
    seen = apart(dataset)
    for place in probe_places(len(stored), _COMPARED, seed=int.from_bytes(os.urandom(4), "little")):
        try:
            block = store.get(stored[place])
            kept = ABSENT if block is None else unpack(block, check=True)
        except ArchiveDamagedError:
            continue
        if kept is not ABSENT and not samples_equal(kept, base_sample(seen, stored[place])):
            return stored[place]
    return None


def _stored_bytes(packed_bytes: int) -> int:
    """Give what one block takes, about: larger ones fill whole pages of the database, the largest have files."""
    if packed_bytes < _PAGE_BYTES // 4 or packed_bytes >= FILE_FROM_BYTES:
        return packed_bytes + _ENTRY_BYTES
    return -(-packed_bytes // _PAGE_BYTES) * _PAGE_BYTES + _ENTRY_BYTES


def _room(store: ValueStore, look: Look, fraction: float | None, limit_bytes: int | None) -> int:
    """Give the bytes that one cache may take, after old ones have made room."""
    root, name = store.directory.parent, store.directory.name
    room = store.size_bytes + int(shutil.disk_usage(root).free * _FREE_SHARE)
    if limit_bytes is None:
        return room
    rows = look.count if fraction is None else max(1, round(fraction * look.count))
    wanted = min(limit_bytes, _DATABASE_BYTES + rows * look.sample_bytes)
    prune(root, limit_bytes - max(0, wanted - store.size_bytes), keep=(name,))
    return min(room, max(0, limit_bytes - cached_bytes(root, without=name)))
