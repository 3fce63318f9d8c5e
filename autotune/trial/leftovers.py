"""Removes what a killed trial leaves in shared memory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's fixed place
_TORCH_FILE = re.compile(r"torch_(\d+)_")


def remove_shared_memory(pids: Iterable[int], folder: Path = _SHARED_MEMORY) -> list[str]:
    """Remove torch's shared memory files of processes that have ended, and give their names.

    torch unlinks such a file as soon as the receiver has opened it; a kill between the two leaves it.

    Args:
        pids: Processes of a trial, all of which have ended.
        folder: The shared memory file system.
    """
    ended = set(pids)
    removed = []
    try:
        entries = list(folder.iterdir())
    except OSError:
        return []
    for entry in entries:
        found = _TORCH_FILE.match(entry.name)
        if found and int(found[1]) in ended:
            with suppress(OSError):
                entry.unlink()
                removed.append(entry.name)
    return removed
