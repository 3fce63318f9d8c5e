"""What a process asks of the kernel so that nothing of a trial outlives it (Linux; nothing happens elsewhere)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ENDED = "ZX"
"""States of processes that run no more; in containers whose first process takes no notice they stay for ever."""


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent_pid: int) -> None:
    """End this process by SIGKILL when its parent ends; at once if that has happened already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def let_forks_die_with_parent() -> None:
    """Tie every process that this one forks from its main thread to this one.

    The kernel's parent is a thread: a fork from a thread that ends earlier would be killed with it.
    """
    main = threading.main_thread().ident
    forking: list[tuple[int, bool]] = []

    def before() -> None:
        forking[:] = [(os.getpid(), threading.get_ident() == main)]

    def after() -> None:
        pid, from_main = forking[0]
        if from_main:
            die_with_parent(pid)

    os.register_at_fork(before=before, after_in_child=after)


def prefer_as_victim() -> None:
    """Have the kernel kill this process first when memory runs out, rather than the tuner or others."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def identity(pid: int | None = None) -> str:
    """Give what tells a process from every other one of this machine, later ones with its number included.

    Args:
        pid: The process; None is this one.

    Returns:
        Boot of the kernel, namespace of process numbers, number and time of start; empty where nothing can tell, and
        for one that has ended and waits only for its parent to notice.
    """
    folder = Path("/proc") / ("self" if pid is None else str(pid))
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # the name of the program, which may hold spaces, ends at the last parenthesis
        state, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
        if state in _ENDED:
            return ""
        started = rest[18]
        return f"{boot} {(Path('/proc/self/ns/pid')).readlink()} {os.getpid() if pid is None else pid} {started}"
    except (OSError, IndexError):
        return ""


def is_gone(process: str) -> bool:
    """Tell whether a process that `identity` named has ended, as far as that can be seen from here.

    Processes of other machines, containers and boots are never known to be gone.
    """
    boot, _, rest = process.partition(" ")
    here = identity().split(" ")
    parts = rest.split(" ")
    if len(parts) != 3 or [boot, parts[0]] != here[:2] or not parts[1].isdigit():
        return False
    return identity(int(parts[1])) != process


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
