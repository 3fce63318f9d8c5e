"""Collating in workers that says by type when shared memory has no room for a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import get_worker_info

from autotune.data.facts import sample_nbytes
from autotune.measure.host import shared_memory_free
from autotune.units import format_bytes


class SharedMemoryFullError(Exception):
    """A worker found no room in shared memory for a batch; torch itself raises a plain `RuntimeError` there."""


class CollatesInWorkers:
    """Collates as it was told, and asks the kernel when that fails in a worker.

    Args:
        collate: The loader's own function.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate

    def __call__(self, samples: Any) -> Any:
        """Make a batch.

        Raises:
            SharedMemoryFullError: The batch is larger than what is free in shared memory.
        """
        try:
            return self._collate(samples)
        except RuntimeError as error:
            free = shared_memory_free()
            needed = sample_nbytes(samples)
            if get_worker_info() is None or free is None or needed <= free:
                raise
            raise SharedMemoryFullError(
                f"a batch of {format_bytes(needed)} had no room in shared memory, {format_bytes(free)} were free; "
                "take fewer workers, a smaller prefetch_factor or batch, or enlarge /dev/shm"
            ) from error
