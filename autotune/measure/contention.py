"""CPU time that others took during a window, and throttling by the control group."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

from autotune.cgroups import Cgroups

_PROC = Path("/proc")
_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)
"""user, nice, system, irq, softirq, steal of `/proc/stat`: not idle and not waiting; guest is in user."""
_OWN_FIELDS = slice(11, 15)
"""utime, stime, cutime, cstime of `/proc/<pid>/stat`, counted from the state on."""


def process_tree(pid: int, proc: Path = _PROC) -> list[int]:
    """List a process and all of its descendants that still live."""
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += _children(found[-1], proc)
    return found


def _children(pid: int, proc: Path) -> Iterator[int]:
    try:
        for task in (proc / str(pid) / "task").iterdir():
            yield from map(int, (task / "children").read_text().split())
    except OSError:  # it has ended, or this kernel does not tell children
        return


def tree_cpu_ticks(root: int, proc: Path = _PROC) -> int:
    """Add up the CPU ticks of a process tree, those of children that have ended included."""
    return sum(sum(_times(proc, pid)) for pid in process_tree(root, proc))


def process_cpu_ticks(pid: int, proc: Path = _PROC) -> int:
    """Give the CPU ticks of one process alone."""
    return sum(_times(proc, pid)[:2])


def busy_ticks(proc: Path = _PROC) -> int | None:
    """Give the ticks that all CPUs have worked; None where there is no `/proc/stat`."""
    try:
        with (proc / "stat").open() as file:
            fields = file.readline().split()[1:]
    except OSError:
        return None
    return sum(int(fields[place]) for place in _BUSY_FIELDS if place < len(fields))


class ContentionMeter:
    """Measures between two moments how much CPU other processes took.

    Args:
        tree: Root of the process tree that counts as ours.
        also: Single processes that count as ours too: the tuner and its server, but not what
            else the tuner's process may have started.
        cgroups: Control groups whose throttling is counted as well.
        count_throttling: Whether it is; not where the quota is what is looked into.
        proc: The folder `/proc`.
    """

    def __init__(
        self,
        tree: int,
        *,
        also: Sequence[int] = (),
        cgroups: Cgroups | None = None,
        count_throttling: bool = True,
        proc: Path = _PROC,
    ) -> None:
        self._tree = tree
        self._also = tuple(also)
        self._cgroups = Cgroups() if cgroups is None else cgroups
        self._count_throttling = count_throttling
        self._proc = proc
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")
        self.own_cpu_s: float | None = None
        self.start()

    def start(self) -> None:
        """Begin to measure."""
        self._throttled_s = self._cgroups.throttled_s()
        self._others, self._own = self._ticks()
        self._started_s = perf_counter()

    def share(self) -> float | None:
        """Give the CPU time of others since the start as a share of one core; None where unknown.

        Seconds of throttling count as taken by others: the quota took the CPU away. `own_cpu_s` is from now on what
        the process tree took.
        """
        seconds = perf_counter() - self._started_s
        (others, own), throttled_s = self._ticks(), self._cgroups.throttled_s()
        self.own_cpu_s = None if others is None else max(0, own - self._own) * self._tick_s
        if others is None or self._others is None or seconds <= 0:
            return None
        taken_s = max(0, others - self._others) * self._tick_s
        if self._count_throttling and throttled_s is not None and self._throttled_s is not None:
            taken_s += max(0.0, throttled_s - self._throttled_s)
        return taken_s / seconds

    def _ticks(self) -> tuple[int | None, int]:
        """Read what others have taken, None where unknown, and what the tree has."""
        busy, own = busy_ticks(self._proc), tree_cpu_ticks(self._tree, self._proc)
        if busy is None:
            return None, own
        return busy - own - sum(process_cpu_ticks(pid, self._proc) for pid in self._also), own


def _times(proc: Path, pid: int) -> list[int]:
    """Read utime, stime, cutime and cstime; the name before them may hold blanks and brackets."""
    try:
        text = (proc / str(pid) / "stat").read_text()
    except OSError:
        return []
    return [int(value) for value in text.rpartition(")")[2].split()[_OWN_FIELDS]]
