"""How many processes keep samples at a time, known to all of them."""

from __future__ import annotations

import os
import time
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.data.shared_memory import SharedMemory

_SLOTS = 512
"""Most holders that are counted; a pool larger than this divides by this number."""
_LOOK_EVERY_S = 1.0
"""Seconds after which it is asked again which processes still live."""


class MemoryHolders:
    """Counts those that keep samples of one dataset, whoever started them: loaders, pools, queues of threads.

    The process that makes it is no holder, as it reads nothing while others read for it; each process that inherits or
    receives it, and each copy of it in one process (a copy for each thread), becomes one at its first `count`. It is
    none any more when it ends.
    """

    def __init__(self) -> None:
        self._shared = SharedMemory(8 * _SLOTS)
        self._begin(home=True)

    def _begin(self, *, home: bool) -> None:
        self._pids: npt.NDArray[np.int64] = self._shared.array(0, 8 * _SLOTS).view(np.int64)
        self._home = home
        self._pid = os.getpid()
        self._entered = False
        self._looked_s = time.monotonic()

    def count(self) -> int:
        """Give how many hold samples now, this one included; at least 1."""
        if self._pid != os.getpid():
            self._begin(home=False)
        if not self._home and not self._entered:
            self._enter()
        elif time.monotonic() - self._looked_s >= _LOOK_EVERY_S:
            with self._shared.locked():
                self._forget_ended()
        return max(1, int(np.count_nonzero(self._pids)))

    def _enter(self) -> None:
        self._entered = True
        with self._shared.locked():
            self._forget_ended()
            free = np.flatnonzero(self._pids == 0)
            if not len(free):
                return
            slot = int(free[0])
            self._pids[slot] = self._pid
        weakref.finalize(self, _leave, self._pids, slot, self._pid)

    def _forget_ended(self) -> None:
        self._looked_s = time.monotonic()
        for slot in np.flatnonzero(self._pids).tolist():
            if not _lives(int(self._pids[slot])):
                self._pids[slot] = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"_shared": self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._shared = state["_shared"]
        self._begin(home=False)


def _leave(pids: npt.NDArray[np.int64], slot: int, pid: int) -> None:
    if os.getpid() == pid:  # a fork inherits what frees its parent's
        pids[slot] = 0


def _lives(pid: int) -> bool:
    if not pid:  # it left meanwhile
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


__all__ = ["MemoryHolders"]
