"""Fewer CPUs for one trial: by the quota of a control group where one can be made, else by affinity."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from autotune.cgroups import Cgroups
from autotune.errors import SpecError

_PERIOD_US = 100_000
"""Period that a quota is divided over: the kernel's own default."""
_REMOVED_WITHIN_S = 5.0
"""The kernel lets go of a group's last process a moment after its end."""


@contextmanager
def cpu_group(cpus: int | None) -> Iterator[Path | None]:
    """Make a control group whose processes get so many CPUs together, and remove it afterwards.

    Args:
        cpus: How many; None makes none.

    Yields:
        Its folder; None where none can be made: no control groups, not this user's, or without this controller.
    """
    folder = None if cpus is None else _make_group(cpus)
    try:
        yield folder
    finally:
        if folder is not None:
            remove_group(folder)


def limit_cpus(cpus: int, group: str | None) -> None:
    """Keep this process, and all that it starts from now on, to so many CPUs.

    Args:
        cpus: How many.
        group: Folder of the control group that has the quota; None, or one that cannot be joined, is affinity.

    Raises:
        SpecError: There is neither on this system.
    """
    if group is not None:
        with suppress(OSError):
            Path(group, "cgroup.procs").write_text(str(os.getpid()))
            return
    if not hasattr(os, "sched_setaffinity"):
        raise SpecError(f"cpus needs control groups or affinity, got cpus={cpus} on a system without; leave it None")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cpus])


def remove_group(folder: Path) -> None:
    """Remove a group whose processes have ended; one that is gone already, or not this user's, is left."""
    end_s = time.monotonic() + _REMOVED_WITHIN_S
    while folder.is_dir() and time.monotonic() < end_s:
        with suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.01)


def _make_group(cpus: int) -> Path | None:
    parent, quota = _parent()
    if parent is None:
        return None
    folder = parent / f"autotune-trial-{uuid4().hex[:8]}"
    try:
        folder.mkdir()
    except OSError:
        return None
    try:
        for name, text in quota.items():
            (folder / name).write_text(text.format(cpus * _PERIOD_US))
    except OSError:
        remove_group(folder)
        return None
    return folder


def _parent() -> tuple[Path | None, dict[str, str]]:
    """Give the folder that a group can be made in, and what to write there.

    Of version 1 it is our own; of version 2 the one above, as a group with processes has none below it.
    """
    cgroups = Cgroups()
    own = cgroups.own_folder("cpu")
    if own is not None:
        return own, {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": "{}"}
    own = cgroups.own_folder("")
    if own is None:
        return None, {}
    parent = own.parent if (own.parent / "cgroup.procs").exists() else own
    return parent, {"cpu.max": f"{{}} {_PERIOD_US}"}
