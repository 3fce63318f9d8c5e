"""LMDB: one file of keys and values, each sample a value under its number."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from weakref import WeakValueDictionary

from torch.utils.data import Dataset

from autotune.data.archives._base import (
    Manifest,
    Progress,
    check_form,
    check_staged,
    finish_manifest,
    finished_file,
    read_manifest,
)
from autotune.data.archives.production import Produced, produce
from autotune.data.batch_buffers import BatchBuffers
from autotune.data.extras import needed
from autotune.data.records import pack_parts, pack_sample, unpack, unpack_all
from autotune.data.stages import base_sample, read_stage
from autotune.errors import ArchiveDamagedError, ArchiveError
from autotune.spec.config import StoredForm
from autotune.units import KIB, MIB

_FILE_NAME = "samples.lmdb"
_FIRST_MAP_BYTES = 16 * MIB
_PENDING_BYTES = 4 * MIB
_VALUE_BYTES_MAX = 2**32 - 1
_READAHEAD_FROM_BYTES = 32 * KIB
"""Mean size of a sample from which the kernel may read ahead: else a cold sample is one fault for each page of it."""
_HEADER = struct.Struct("<16xII16xI")
"""Start of a file: page header, magic number, version, address and size of the map, page size."""
_MAGIC = 0xBEEFC0DE
_PAGE_BYTES = tuple(2**power for power in range(9, 17))


class LmdbFormat:
    """One LMDB file; the key of a sample is its number in 8 bytes, big endian."""

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
                what cannot be given back exactly, or has more than 4 GiB.
            MissingExtraError: `lmdb` is not installed.
        """
        check_form("lmdb", stored)
        check_staged(source, stored)
        lmdb = needed("lmdb", "archive 'lmdb'")
        path = directory / _FILE_NAME
        encode = _parts if stored == "encoded" else _sample
        with _Writer(lmdb, path) as writer:
            for sample in produce(source, encode, workers=workers, progress=progress):
                writer.add(bytes(sample.data))
        return finish_manifest(source, directory, form=("lmdb", stored), files={_FILE_NAME: finished_file(path)})

    def open(self, directory: Path) -> Dataset[Any]:
        """Open the file at the first access, in each process anew.

        Raises:
            ArchiveDamagedError: The file has another size than was stored.
            MissingExtraError: `lmdb` is not installed.
        """
        needed("lmdb", "archive 'lmdb'")
        return LmdbDataset(directory)


class LmdbDataset(Dataset[Any]):
    """Samples (`decoded`) or tuples of bytes (`encoded`) of a folder that `LmdbFormat` built."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        manifest = read_manifest(directory)
        self._count = manifest.count
        entry = manifest.files.get(_FILE_NAME)
        self._size = entry.size_bytes if entry else 0
        self._path = directory / _FILE_NAME
        _check_header(self._path, self._size)
        self._environment: _Environment | None = None
        self._buffers = BatchBuffers()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        key = _key(self._row(index))
        with _reading:
            # The value is a view of the mapped file; what is rebuilt from it are copies.
            return unpack(self._value(self._transaction(), key))

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Give the samples of a whole batch, read in one transaction."""
        keys = [_key(self._row(index)) for index in indices]
        with _reading:
            transaction = self._transaction()
            return unpack_all([self._value(transaction, key) for key in keys], self._buffers)

    def _transaction(self) -> Any:
        if self._environment is None:
            self._environment = _environment_of(self._path, self._size, self._count)
        return self._environment.transaction()

    def _value(self, transaction: Any, key: bytes) -> memoryview:
        value: memoryview | None = transaction.get(key)
        if value is None:
            raise _damaged(self._path, f"sample {int.from_bytes(key)} is missing")
        return value

    def _row(self, index: int) -> int:
        if not -self._count <= index < self._count:
            raise IndexError(f"index must be under {self._count}, got {index}")
        return int(index) % self._count

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory}

    def __setstate__(self, state: dict[str, Any]) -> None:
        LmdbDataset.__init__(self, state["directory"])


class _Environment:
    """A file opened for reading, once in a process however many datasets read it: the library refuses a second time."""

    def __init__(self, path: Path, size: int, count: int) -> None:
        self._path = path
        self._size = size
        self._count = count
        self._opened: Any = None
        self._transaction: Any = None

    def transaction(self) -> Any:
        """Give a transaction that reads, opened where it is not; the file never changes, so one does for all."""
        if self._transaction is None:
            self._opened = self._open()
            self._transaction = self._opened.begin(buffers=True)
        return self._transaction

    def _open(self) -> Any:
        _check_header(self._path, self._size)
        lmdb = needed("lmdb", "archive 'lmdb'")
        ahead = self._size >= self._count * _READAHEAD_FROM_BYTES
        try:
            opened = lmdb.open(
                str(self._path), subdir=False, readonly=True, create=False, lock=False, readahead=ahead, max_dbs=0
            )
        except lmdb.Error as error:
            raise _damaged(self._path, f"it cannot be opened: {error}") from error
        facts, pages = opened.stat(), opened.info()["last_pgno"] + 1
        if facts["entries"] != self._count or pages * facts["psize"] > self._size:
            opened.close()
            raise _damaged(self._path, f"it must hold {self._count} samples, got {facts['entries']} on {pages} pages")
        return opened

    def close(self) -> None:
        """Close what is open; the next access opens it again."""
        opened, transaction = self._opened, self._transaction
        self._opened = self._transaction = None
        if transaction is not None:
            transaction.abort()
        if opened is not None:
            opened.close()

    def __del__(self) -> None:
        self.close()


_environments: WeakValueDictionary[tuple[int, int], _Environment] = WeakValueDictionary()
"""Files of this process by device and inode."""
_reading = threading.RLock()
"""Held while a file is read: so none is in use when the process is forked."""


def _environment_of(path: Path, size: int, count: int) -> _Environment:
    try:
        facts = path.stat()
    except OSError as error:
        raise _damaged(path, f"it cannot be read: {error}") from error
    environment = _environments.get((facts.st_dev, facts.st_ino))
    if environment is None:
        environment = _Environment(path, size, count)
        _environments[facts.st_dev, facts.st_ino] = environment
    return environment


def _before_fork() -> None:
    """Close every file, for a child can neither use what it inherits, nor close it, nor open the file beside it."""
    _reading.acquire()
    for environment in list(_environments.values()):
        environment.close()


def _after_fork() -> None:
    _reading.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class _Writer:
    """Values appended in order, some of them in each transaction."""

    def __init__(self, lmdb: Any, path: Path) -> None:
        self._lmdb = lmdb
        self._path = path
        self._count = 0
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._map_bytes = _FIRST_MAP_BYTES
        self._environment = lmdb.open(
            str(path), subdir=False, map_size=self._map_bytes, lock=False, sync=False, metasync=False, max_dbs=0
        )

    def add(self, value: bytes) -> None:
        if len(value) > _VALUE_BYTES_MAX:
            raise ArchiveError(
                f"a sample in archive 'lmdb' has at most {_VALUE_BYTES_MAX} bytes, got {len(value)}; use archive 'tar'"
            )
        self._pending.append(value)
        self._pending_bytes += len(value)
        if self._pending_bytes >= _PENDING_BYTES:
            self._write()

    def _write(self) -> None:
        while not self._try():
            self._map_bytes *= 2
            self._environment.set_mapsize(self._map_bytes)
        self._count += len(self._pending)
        self._pending = []
        self._pending_bytes = 0

    def _try(self) -> bool:
        """Write what is pending in one transaction, unless it does not fit into the map."""
        try:
            with self._environment.begin(write=True) as transaction:
                for number, value in enumerate(self._pending, self._count):
                    transaction.put(_key(number), value, append=True)
        except self._lmdb.MapFullError:
            return False
        except self._lmdb.Error as error:
            # Of a write that failed the library gives no more than its message, so the disk itself is asked.
            full = shutil.disk_usage(self._path.parent).free < self._pending_bytes + MIB
            raise OSError(errno.ENOSPC if full else errno.EIO, f"{self._path} cannot be written: {error}") from error
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._write()
        finally:
            self._environment.close()


def _check_header(path: Path, size: int) -> None:
    """Refuse a file that the library would map past its end, which ends the process instead of raising.

    Raises:
        ArchiveDamagedError: It is gone, cut off, or no LMDB file.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            magic, _, page_bytes = _HEADER.unpack(file.read(_HEADER.size))
    except (OSError, struct.error) as error:
        raise _damaged(path, f"it cannot be read: {error}") from error
    if found != size:
        raise _damaged(path, f"it must have {size} bytes, got {found}")
    if magic != _MAGIC or page_bytes not in _PAGE_BYTES or found < 2 * page_bytes:
        raise _damaged(path, "its first page is none of LMDB's")


def _damaged(path: Path, what: str) -> ArchiveDamagedError:
    return ArchiveDamagedError(f"{path} is damaged: {what}; remove the archive and build it again")


def _key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _sample(source: Dataset[Any], index: int) -> Produced:
    return Produced(None, pack_sample(base_sample(source, index)))


def _parts(source: Dataset[Any], index: int) -> Produced:
    return Produced(None, pack_parts(read_stage(source, index)))
