"""Memory that all worker processes of a loader share and that leaves nothing behind after a kill."""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from autotune.errors import CapacityError
from autotune.units import format_bytes

_HAS_MEMFD = hasattr(os, "memfd_create")
_OPENED_FILES = "/proc/self/fd"
_Lock = tuple[Callable[[int, int], object], int]
"""How a file is locked, and by which descriptor."""


class MemoryAddress(NamedTuple):
    """Where another process of this machine finds shared memory, for as long as the process that gave it lives.

    Attributes:
        token: Name of the memory in pickles.
        size_bytes: Its size.
        process: Number of the process.
        descriptor: Number of the file in it.
        identity: Device, number and size of the file, by which it is told from another one.
    """

    token: str
    size_bytes: int
    process: int
    descriptor: int
    identity: tuple[int, int, int]


class SharedMemory:
    """Anonymous memory-mapped file, shared by every process that inherits or receives it.

    It has no name: forked workers inherit the mapping, spawned ones and those of a fork server get the
    descriptor while they start. The kernel frees it with the last process. It counts as shared memory of
    the machine and of the memory cgroup, but is no file in `/dev/shm` and not bound by its size. Where the
    system has no such files, a temporary file without a name takes its place, bound by its disk
    (`backing_free_bytes`).

    A copy, or a pickle that is read in a process that has the memory, shares it. Read anywhere else
    (from a file, on another machine) it is memory of the same size, all zeros.

    Args:
        size_bytes: Size; pages cost memory only once written.

    Raises:
        CapacityError: It cannot be had.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._backing = _Backing(uuid.uuid4().hex, _anonymous_file(max(1, size_bytes)), size_bytes)

    def array(self, offset: int, count: int) -> npt.NDArray[np.uint8]:
        """Give `count` bytes from `offset` on as a writable view."""
        return np.frombuffer(self._backing.map, dtype=np.uint8, count=count, offset=offset)

    def address(self) -> MemoryAddress:
        """Tell where processes that are no children of this one find the memory."""
        descriptor = self._backing.descriptor
        return MemoryAddress(
            self._backing.token, self.size_bytes, os.getpid(), descriptor, _identity(os.fstat(descriptor))
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other thread and process that shares the memory out; the kernel unlocks after a kill."""
        lock, descriptor = self._backing.lock()
        with self._backing.threads:
            lock(descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                lock(descriptor, fcntl.LOCK_UN)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {"size_bytes": self.size_bytes, "token": self._backing.token}
        if get_spawning_popen() is not None:
            state["handle"] = reduction.DupFd(self._backing.descriptor)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.size_bytes = state["size_bytes"]
        handle = state.get("handle")
        here = _HERE.get(state["token"])
        if here is not None:
            self._backing = here
        elif handle is not None:
            self._backing = _Backing(state["token"], handle.detach(), self.size_bytes)
        else:
            SharedMemory.__init__(self, self.size_bytes)


class _Backing:
    """File and mapping behind all copies of one memory in a process."""

    def __init__(self, token: str, descriptor: int, size_bytes: int) -> None:
        self.token = token
        self.descriptor = descriptor
        self.threads = threading.Lock()
        self._locking: tuple[int, _Lock] | None = None
        try:
            self.map = mmap.mmap(descriptor, max(1, size_bytes))
        except (OSError, ValueError, OverflowError) as error:
            raise CapacityError(
                f"{format_bytes(size_bytes)} of shared memory cannot be mapped: {error}; use a smaller cache",
                size_bytes,
            ) from error
        _HERE[token] = self

    def lock(self) -> _Lock:
        """Open the file once more in each process: locks of an inherited descriptor would be shared with the parent."""
        pid = os.getpid()
        if self._locking is None or self._locking[0] != pid:
            if self._locking is not None:
                os.close(self._locking[1][1])
                self.threads = threading.Lock()  # another thread may have held it at the fork
            self._locking = (pid, _opened_again(self.descriptor))
        return self._locking[1]

    def __del__(self) -> None:
        # The mapping stays as long as an array views it; the descriptors alone are ours to close.
        os.close(self.descriptor)
        if self._locking is not None:
            os.close(self._locking[1][1])


_HERE: WeakValueDictionary[str, _Backing] = WeakValueDictionary()
"""Memory of this process by token, so that copies and pickles that are read here share it."""


def adopted(address: MemoryAddress) -> object | None:
    """Map the memory of another process of this machine and user.

    Returns:
        What has to live while pickles of the memory are read here, which share it then; None where the memory cannot
        be had: on another machine or system, in another container, or of a process that has ended.
    """
    here = _HERE.get(address.token)
    if here is not None:
        return here
    path = f"/proc/{address.process}/fd/{address.descriptor}"
    try:
        if _identity(os.stat(path)) != address.identity:  # noqa: PTH116  # a number of another container's process
            return None
        return _Backing(address.token, os.open(path, os.O_RDWR | os.O_CLOEXEC), address.size_bytes)
    except (OSError, CapacityError):
        return None


def _identity(facts: os.stat_result) -> tuple[int, int, int]:
    return facts.st_dev, facts.st_ino, facts.st_size


class SharedNumbers:
    """A few 64-bit integers that all worker processes see; copied by value where none is being started."""

    def __init__(self, count: int) -> None:
        self._memory = SharedMemory(8 * count)
        self.values: npt.NDArray[np.int64] = self._memory.array(0, 8 * count).view(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        if get_spawning_popen() is None:
            return {"values": self.values.tolist()}
        return {"memory": self._memory}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "memory" in state:
            self._memory = state["memory"]
            self.values = self._memory.array(0, self._memory.size_bytes).view(np.int64)
            return
        SharedNumbers.__init__(self, len(state["values"]))
        self.values[:] = state["values"]


def backing_free_bytes() -> int | None:
    """Give what the disk behind shared memory has free; None where memory alone is behind it."""
    return None if _HAS_MEMFD else shutil.disk_usage(tempfile.gettempdir()).free


def _anonymous_file(size_bytes: int) -> int:
    """Open an unnamed file of a size, which takes room only where it is written."""
    descriptor = -1
    try:
        descriptor = _unnamed_file()
        os.ftruncate(descriptor, size_bytes)
    except (OSError, OverflowError) as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise CapacityError(
            f"{format_bytes(size_bytes)} of shared memory cannot be had: {error}; use a smaller cache", size_bytes
        ) from error
    return descriptor


def _unnamed_file() -> int:
    if _HAS_MEMFD:
        return os.memfd_create("autotune", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _opened_again(descriptor: int) -> _Lock:
    try:
        return fcntl.flock, os.open(f"{_OPENED_FILES}/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # no /proc: a copy shares its `flock` with the parent, while `lockf` is the process's own
        return fcntl.lockf, os.dup(descriptor)
