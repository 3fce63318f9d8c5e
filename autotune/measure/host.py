"""Host and shared memory of the process tree that loads."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from autotune.constants import HOST_SAMPLE_EVERY_S
from autotune.measure.contention import process_tree
from autotune.measure.limits import check_host_memory, stop
from autotune.units import KIB

_PROC = Path("/proc")
_EXTRA_BATCHES = 2
"""Batches in flight beside the prefetched ones: the consumer's, and the one being written."""


def shared_memory_needed(*, num_workers: int, prefetch_factor: int, batch_bytes: int) -> int:
    """Predict the shared memory that batches on their way from workers take at most, in bytes."""
    return (prefetch_factor * num_workers + _EXTRA_BATCHES) * batch_bytes if num_workers else 0


def shared_memory_free(path: Path = Path("/dev/shm")) -> int | None:  # noqa: S108 - the kernel's fixed place
    """Give the free bytes of the shared memory file system; None where there is none."""
    try:
        stats = os.statvfs(path)
    except OSError:
        return None
    return stats.f_bavail * stats.f_frsize


def tree_pss_bytes(pid: int, proc: Path = _PROC) -> int | None:
    """Give the proportional set size of a process tree; None where the kernel does not tell."""
    sizes = [_pss(proc / str(member) / "smaps_rollup") for member in process_tree(pid, proc)]
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


class HostMeter:
    """Reads the process tree's memory now and then, outside timed windows.

    Args:
        pid: Root of the tree.
        limit_bytes: The smaller of RAM and cgroup limit.
        clock: Monotonic clock in seconds.
        proc: The folder `/proc`.
    """

    def __init__(
        self, pid: int, limit_bytes: int, *, clock: Callable[[], float] = monotonic, proc: Path = _PROC
    ) -> None:
        self.peak_bytes: int | None = None
        self._pid = pid
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._proc = proc
        self._next_s = -float("inf")

    def sample(self) -> None:
        """Read, unless the last reading is less than `HOST_SAMPLE_EVERY_S` old.

        Raises:
            MeasurementStoppedError: The tree uses more than the host allows.
        """
        now_s = self._clock()
        if now_s < self._next_s:
            return
        used = tree_pss_bytes(self._pid, self._proc)
        self._next_s = now_s + HOST_SAMPLE_EVERY_S
        if used is not None:
            self.peak_bytes = max(used, self.peak_bytes or 0)
            check_host_memory(used, self._limit_bytes)
        elif sys.platform == "linux":
            raise stop("unmeasurable", "measure", "host memory cannot be read from smaps_rollup; mount /proc")


def tree_bytes_read(pid: int, proc: Path = _PROC) -> int | None:
    """Give the bytes that a process tree has fetched from storage (0 while the page cache answers)."""
    values = []
    for member in process_tree(pid, proc):
        try:
            lines = (proc / str(member) / "io").read_text().splitlines()
        except OSError:
            continue
        values += [int(line.partition(":")[2]) for line in lines if line.startswith("read_bytes:")]
    return sum(values) if values else None


def _pss(path: Path) -> int | None:
    try:
        with path.open() as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * KIB
    except OSError:
        return None
    return None
