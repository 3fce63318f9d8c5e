"""Who uses an archive: a lock of the kernel for each process that has it open, and when it was used last."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from autotune.data.archives._base import MANIFEST_NAME
from autotune.errors import ArchiveError

# Windows has no such locks, and does not remove files that are open either.
_LOCKS: Any = importlib.import_module("fcntl") if os.name == "posix" else None

_USED = ".used"
_LOCK = ".lock"


class Hold:
    """Keeps an archive from being removed for as long as this object lives, in this process or one forked from it.

    A shared `flock` on the manifest. The kernel gives it up when the last descriptor is closed, whatever the
    processes died of; it is never unlocked explicitly, as a forked worker would unlock it for its parent. A
    pickled copy holds the archive anew. Where the file system has no such locks nothing is held.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = _shared(directory / MANIFEST_NAME)

    @property
    def current(self) -> bool:
        """Whether the archive that lies there is the one that is held, and not one that was built since."""
        if self._descriptor < 0:
            return True
        with suppress(OSError):
            return os.path.samestat(os.fstat(self._descriptor), (self._directory / MANIFEST_NAME).stat())
        return False

    def __reduce__(self) -> tuple[type[Hold], tuple[Path]]:
        return Hold, (self._directory,)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            with suppress(OSError):
                os.close(self._descriptor)


def _shared(path: Path) -> int:
    if _LOCKS is None:
        return -1
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _LOCKS.flock(descriptor, _LOCKS.LOCK_SH)
        except OSError:
            os.close(descriptor)
        else:
            return descriptor
    return -1


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Let others see, by `is_held`, that somebody works with a file while the block runs."""
    descriptor = _shared(path)
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def is_held(path: Path) -> bool:
    """Tell whether some process has a file in hand, this one included: that of an archive is its manifest."""
    with suppress(OSError), _alone(path) as alone:
        return not alone
    return False


@contextmanager
def taken(directory: Path) -> Iterator[None]:
    """Have an archive for oneself, in order to remove it.

    Raises:
        ArchiveError: It is being built, some process has it open, or its files cannot be changed.
    """
    try:
        with building_lock(directory).acquire(timeout=0), _alone(directory / MANIFEST_NAME) as alone:
            if not alone:
                raise ArchiveError(f"the archive {directory} is in use by a process that loads from it; end that first")
            yield
    except Timeout:
        raise ArchiveError(f"the archive {directory} is being built at this moment; wait for it") from None
    except OSError as error:
        raise ArchiveError(f"the archive {directory} cannot be removed: {error}; remove its folder by hand") from error


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Lock a file for oneself where nobody holds it; one that is not there is held by nobody."""
    if _LOCKS is None:
        yield True
        return
    try:
        # Network file systems refuse an exclusive lock on what is open for reading only.
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        yield _locked(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        _LOCKS.flock(descriptor, _LOCKS.LOCK_EX | _LOCKS.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def building_lock(directory: Path) -> FileLock:
    """Give the lock, not yet acquired, that whoever builds or removes this archive has to hold."""
    return FileLock(f"{directory}{_LOCK}")


def touch_used(directory: Path) -> None:
    """Note that an archive is used now; on a read-only disk it is not noted."""
    with suppress(OSError):
        used_file(directory).touch()


def used_at(directory: Path) -> float:
    """Give when an archive was used last, in seconds since 1970."""
    for path in (used_file(directory), directory / MANIFEST_NAME):
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def used_file(directory: Path) -> Path:
    """Give the file beside an archive whose time of change is that of its last use."""
    return directory.with_name(f"{directory.name}{_USED}")
