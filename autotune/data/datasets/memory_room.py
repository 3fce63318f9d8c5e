"""How much memory kept samples may take: a share of what was available, and never what others need by now."""

from __future__ import annotations

import copy
import ctypes
import functools
from collections.abc import Callable
from typing import Any

from torch.utils.data import get_worker_info

from autotune.data.caches.planning import available_bytes
from autotune.data.datasets.memory_holders import MemoryHolders
from autotune.errors import SpecError


class MemoryRoom:
    """A share of the memory that this machine and this process's control groups had available.

    Two limits hold together: all processes that keep samples for loaders take no more than the share, each its part
    of it; and the rest stays available, whoever uses memory. So when memory gets tight later on, samples have to go.

    Workers of a DataLoader know from the start how many they are. Those of other loaders (a pool, Keras's processes and
    threads, DALI) are counted as they begin to keep samples: until all of them do, the first may hold more than its
    part, which it lets go with its next samples.

    Args:
        share: Share of the available memory that may be used, above 0 and at most 1.
        available: Tells the memory that is available.

    Attributes:
        limit_bytes: Most bytes that all processes together may keep, or the one that made it while it reads by itself.
        floor_bytes: Bytes that stay available.

    Raises:
        SpecError: The share is none.
    """

    def __init__(self, share: float, *, available: Callable[[], int] = available_bytes) -> None:
        self.share = checked_share(share, "max_memory_usage")
        self._available = available
        room = available()
        self.limit_bytes = int(share * room)
        self.floor_bytes = room - self.limit_bytes
        self._holders = MemoryHolders()

    @property
    def own_limit_bytes(self) -> int:
        """Most bytes that this process, or this copy for a thread, may keep: where several read, its part."""
        info = get_worker_info()
        return self.limit_bytes // max(self._holders.count(), 1 if info is None else info.num_workers)

    def missing_bytes(self, wanted_bytes: int = 0) -> int:
        """Give the bytes that have to be let go before so many more are taken; 0 or less is none."""
        return self.floor_bytes + wanted_bytes - self._available()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._holders = copy.copy(self._holders)  # a copy keeps samples of its own


def checked_share(share: Any, name: str) -> float:
    """Give a share of memory.

    Raises:
        SpecError: It is not above 0 and at most 1.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise SpecError(f"{name} is a share of the available memory, above 0 and at most 1, got {share!r}; write 0.8")
    return float(share)


def return_freed_memory() -> None:
    """Hand memory that was let go back to the system, where the allocator would keep it for later."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], Any] | None:
    try:
        library = ctypes.CDLL(None)  # what this process has loaded already
    except (OSError, TypeError):
        return None
    trim: Callable[[int], Any] | None = getattr(library, "malloc_trim", None)  # the GNU library alone has it
    return trim


__all__ = ["MemoryRoom", "checked_share", "return_freed_memory"]
