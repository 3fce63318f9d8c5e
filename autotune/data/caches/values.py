"""Blocks of bytes by sample number, in files and a SQLite database that many processes may use at once."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from autotune.data.extras import needed
from autotune.errors import ArchiveDamagedError
from autotune.units import KIB

_WHY = "cache 'disk'"
_INHERITED: list[Any] = []
"""Connections of the parent: closing one in a child, garbage collection included, would disturb the parent's."""

FILE_FROM_BYTES = 32 * KIB
"""Values of this size and more lie in files of their own; smaller ones in pages of the database."""
_NEVER_FULL_BYTES = 1 << 62
_LOCK_WAIT_S = 60.0
_UNUSABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
"""What SQLite says of disk and machine; anything else is the fault of what is stored."""


class ValueStore:
    """A `diskcache.Cache` of plain bytes, opened in each process anew and never unpickled.

    Every method raises `ArchiveDamagedError` where what is stored is none of ours or damaged, and `OSError`
    where it cannot be used now (a full disk, no right to write, a lock that somebody keeps). Once opening it
    has failed in a process, it is not tried there again.

    Args:
        directory: Its folder; made where it is missing.

    Raises:
        MissingExtraError: `diskcache` is not installed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        needed("diskcache", _WHY)
        self._pid = os.getpid()
        self._opened: Any = None
        self._failure: Exception | None = None
        self._opening = threading.Lock()

    def open(self) -> None:
        """Open the database."""
        self._store()

    def close(self) -> None:
        """Close the connection of this thread; the next use opens it again."""
        if self._pid == os.getpid():
            if self._opened is not None:
                with suppress(sqlite3.Error):
                    self._opened.close()
            self._opened = self._failure = None

    def get(self, index: int) -> bytes | None:
        """Give the bytes of a sample; None where there are none."""
        with self._told():
            value = self._store().get(index)
        if value is not None and type(value) is not bytes:
            raise ArchiveDamagedError(f"{self.directory}: a value of type {type(value).__name__} is stored")
        return value

    def put(self, index: int, block: bytes) -> None:
        """Keep the bytes of a sample, in place of others; all of them or none."""
        store = self._store()
        try:
            with self._told():
                store.set(index, block)
        except BaseException:
            store.disk.undo()
            raise
        store.disk.done()

    def __contains__(self, index: int) -> bool:
        with self._told():
            return index in self._store()

    def indices(self) -> list[int]:
        """Give the numbers of the samples that are there."""
        with self._told():
            return [key for key in self._store().iterkeys() if type(key) is int]

    @property
    def size_bytes(self) -> int:
        """Bytes of files and database."""
        with self._told():
            return int(self._store().volume())

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell what is the fault of the stored data from what is not."""
        try:
            yield
        except (OSError, ArchiveDamagedError):
            raise
        except needed("diskcache", _WHY).Timeout as error:
            raise OSError(f"{self.directory} is locked or cannot be written") from error
        except Exception as error:
            # The database tells its own settings, and a damaged one anything at all.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if isinstance(error, sqlite3.Error) and code & 0xFF in _UNUSABLE:
                raise OSError(f"{self.directory} cannot be used: {error}") from error
            raise ArchiveDamagedError(
                f"{self.directory} holds no disk cache that can be read: {type(error).__name__}: {error}"
            ) from error

    def _store(self) -> Any:
        if self._pid != os.getpid():
            _INHERITED.append(self._opened)
            self._pid, self._opened, self._failure = os.getpid(), None, None
            self._opening = threading.Lock()
        if self._opened is not None:
            return self._opened
        with self._opening:
            if self._failure is not None:
                raise self._failure
            if self._opened is None:
                try:
                    self._opened = self._connected()
                except (OSError, ArchiveDamagedError) as error:
                    self._failure = error
                    raise
        return self._opened

    def _connected(self) -> Any:
        diskcache = needed("diskcache", _WHY)
        from autotune.data.caches.plain_disk import PlainDisk  # which cannot be imported without the package

        self.directory.mkdir(parents=True, exist_ok=True)
        with self._told():
            return diskcache.Cache(
                str(self.directory),
                timeout=_LOCK_WAIT_S,
                disk=PlainDisk,
                disk_min_file_size=FILE_FROM_BYTES,
                eviction_policy="none",
                size_limit=_NEVER_FULL_BYTES,
                cull_limit=0,
                statistics=0,
                tag_index=0,
                sqlite_mmap_size=0,  # a file that somebody truncates would end the process by a bus error
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory}

    def __setstate__(self, state: dict[str, Any]) -> None:
        ValueStore.__init__(self, state["directory"])
