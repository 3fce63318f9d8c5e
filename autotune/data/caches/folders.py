"""Folders of disk caches: who is using one, and which goes when there is no more room."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_logger = logging.getLogger(__name__)

_LOCK_SUFFIX = ".lock"
_REMOVING_SUFFIX = ".removing"


class FolderLock:
    """Says that a cache is in use: shared by all who read it, exclusive for who removes it.

    The lock file lies beside the folder, and its modification time tells when the cache was last opened.
    The kernel lets go of it with the last process that holds it, killed or not.

    Args:
        folder: Folder of the cache.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder.with_name(folder.name + _LOCK_SUFFIX)
        self._descriptor: int | None = None

    def share(self) -> None:
        """Wait until nobody removes the cache, and keep it from being removed."""
        while True:
            descriptor = self._opened()
            with suppress(OSError):  # a file system without such locks holds nothing, and nothing there is removed
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            if self._is_current(descriptor):
                os.utime(descriptor)
                return
            self.release()

    def take(self) -> bool:
        """Become the only one who uses the cache; False where somebody else does."""
        descriptor = self._opened()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            return False
        if self._is_current(descriptor):
            return True
        self.release()
        return False

    def release(self) -> None:
        """Let go of the cache."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Remove the lock file, which is held alone."""
        self._path.unlink(missing_ok=True)
        self.release()

    def _opened(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        return self._descriptor

    def _is_current(self, descriptor: int) -> bool:
        """Tell whether the file that is locked is still the one with the name."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        return False

    def __del__(self) -> None:
        self.release()


class _Folder(NamedTuple):
    path: Path
    size_bytes: int
    used_at: float


def prune(root: Path, limit_bytes: int, keep: Collection[str] = ()) -> tuple[str, ...]:
    """Remove the caches that were not opened for longest until all of them fit, and give their names.

    One that some process uses stays, and so does each of `keep`, whatever the limit.

    Args:
        root: Folder of all disk caches.
        limit_bytes: Most bytes that all of them may take together.
        keep: Names of folders that stay.
    """
    _remove_leftovers(root)
    folders = sorted(_folders(root), key=lambda folder: folder.used_at)
    total = sum(folder.size_bytes for folder in folders)
    removed = []
    for folder in folders:
        if total <= limit_bytes:
            break
        if folder.path.name not in keep and _remove(folder.path):
            total -= folder.size_bytes
            removed.append(folder.path.name)
            _logger.info("Removed the disk cache %s, which was not used for longest", folder.path)
    return tuple(removed)


def cached_bytes(root: Path, *, without: str | None = None) -> int:
    """Give the bytes of all disk caches in a folder, but for one."""
    return sum(folder.size_bytes for folder in _folders(root) if folder.path.name != without)


def _remove(path: Path) -> bool:
    lock = FolderLock(path)
    if not lock.take():
        return False
    # Renamed first, so that a kill leaves no half of a cache under its name.
    leaving = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{_REMOVING_SUFFIX}")
    path.rename(leaving)
    lock.remove()
    shutil.rmtree(leaving, ignore_errors=True)
    return True


def _remove_leftovers(root: Path) -> None:
    for leftover in root.glob(f"*{_REMOVING_SUFFIX}"):
        shutil.rmtree(leftover, ignore_errors=True)


def _folders(root: Path) -> Iterator[_Folder]:
    if not root.is_dir():
        return
    for path in root.iterdir():
        if path.is_symlink() or not path.is_dir() or path.name.endswith(_REMOVING_SUFFIX):
            continue
        with suppress(FileNotFoundError):
            lock = path.with_name(path.name + _LOCK_SUFFIX)
            stamp = lock if lock.exists() else path
            yield _Folder(path, folder_bytes(path), stamp.stat().st_mtime)


def folder_bytes(path: Path) -> int:
    """Give the bytes of all files below a folder."""
    total = 0
    for parent, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118  # a Path a file costs more
    return total
