"""One tuning job a machine: two at once would measure each other."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from autotune.errors import MachineBusyError


@contextmanager
def machine_lock(purpose: str, *, path: Path) -> Iterator[None]:
    """Hold the machine while the block runs; the kernel frees it on any death.

    Args:
        purpose: What the holder does, for the message to others.
        path: The lock file.

    Raises:
        MachineBusyError: Another process holds it; the message names it.
    """
    lock = FileLock(path, mode=0o666)
    note = path.with_suffix(".holder")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise MachineBusyError(f"this machine is measuring already: {_holder(note)}; wait for it or stop it") from None
    except PermissionError:
        raise MachineBusyError(
            f"the lock {path} belongs to another user; let AUTOTUNE_LOCK name a file that both may write"
        ) from None
    try:
        with suppress(OSError):  # only the name in the others' message depends on it
            note.write_text(json.dumps({"pid": os.getpid(), "purpose": purpose, "since": time.strftime("%F %T")}))
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        lock.release()


def _holder(note: Path) -> str:
    try:
        holder = json.loads(note.read_text())
        return f"process {holder['pid']} ({holder['purpose']}, since {holder['since']})"
    except (OSError, ValueError, KeyError):
        return "a process that left no note"
