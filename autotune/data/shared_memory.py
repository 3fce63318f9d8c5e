"""Memory that all worker processes of a loader share and that leaves nothing behind after a kill."""

from __future__ import annotations

import mmap
import os
import tempfile
from multiprocessing import reduction
from typing import Any

import numpy as np
import numpy.typing as npt


class SharedMemory:
    """Anonymous memory-mapped file, shared by every process that inherits or receives it.

    It has no name: forked workers inherit the mapping, spawned ones and those of a fork server get the
    descriptor while they start. The kernel frees it with the last process. It counts as shared memory,
    but is no file in `/dev/shm` and not bound by its size.

    Args:
        size_bytes: Size; pages cost memory only once written.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._descriptor = _anonymous_file()
        os.ftruncate(self._descriptor, max(1, size_bytes))
        self._map = mmap.mmap(self._descriptor, max(1, size_bytes))

    def array(self, offset: int, count: int) -> npt.NDArray[np.uint8]:
        """Give `count` bytes from `offset` on as a writable view."""
        return np.frombuffer(self._map, dtype=np.uint8, count=count, offset=offset)

    def __getstate__(self) -> dict[str, Any]:
        return {"size_bytes": self.size_bytes, "handle": reduction.DupFd(self._descriptor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.size_bytes = state["size_bytes"]
        self._descriptor = state["handle"].detach()
        self._map = mmap.mmap(self._descriptor, max(1, self.size_bytes))

    def __del__(self) -> None:
        # The mapping stays as long as an array views it; the descriptor alone is ours to close.
        descriptor = self.__dict__.pop("_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


class SharedNumbers:
    """A few 64-bit integers that all worker processes see; copied by value where none is being started."""

    def __init__(self, count: int) -> None:
        self._memory = SharedMemory(8 * count)
        self.values: npt.NDArray[np.int64] = self._memory.array(0, 8 * count).view(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        from multiprocessing.context import get_spawning_popen

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


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("autotune", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
