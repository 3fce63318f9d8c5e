"""One tuning job a machine: two at once would measure each other."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from autotune.errors import MachineBusyError

# Windows has no locks that several may share: there one builder waits for the other.
_LOCKS: Any = importlib.import_module("fcntl") if os.name == "posix" else None


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
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _busy(path) from None
    except PermissionError:
        raise _belongs_to_another(path) from None
    try:
        with _noted(path, purpose):
            yield
    finally:
        lock.release()


@contextmanager
def machine_shared(purpose: str, *, path: Path) -> Iterator[None]:
    """Keep measurements off the machine while the block runs, but not others that measure nothing either.

    Args:
        purpose: What this process does, for the message to others.
        path: The lock file.

    Raises:
        MachineBusyError: Another process holds the machine for itself; the message names it.
    """
    if _LOCKS is None:
        with machine_lock(purpose, path=path):
            yield
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:
        raise _belongs_to_another(path) from None
    try:
        with suppress(OSError):  # another user's file, which is as it should be already
            os.fchmod(descriptor, 0o666)
        try:
            _LOCKS.flock(descriptor, _LOCKS.LOCK_SH | _LOCKS.LOCK_NB)
        except BlockingIOError:
            raise _busy(path) from None
        with _noted(path, purpose):
            yield
    finally:
        os.close(descriptor)


@contextmanager
def _noted(path: Path, purpose: str) -> Iterator[None]:
    """Leave a note of who holds the machine; only the name in the others' message depends on it."""
    note = _note(path)
    with suppress(OSError):
        note.write_text(json.dumps({"pid": os.getpid(), "purpose": purpose, "since": time.strftime("%F %T")}))
    try:
        yield
    finally:
        with suppress(OSError, ValueError, KeyError):
            if json.loads(note.read_text())["pid"] == os.getpid():
                note.unlink(missing_ok=True)


def _note(path: Path) -> Path:
    return path.with_suffix(".holder")


def _busy(path: Path) -> MachineBusyError:
    try:
        holder = json.loads(_note(path).read_text())
        told = f"process {holder['pid']} ({holder['purpose']}, since {holder['since']})"
    except (OSError, ValueError, KeyError):
        told = "a process that left no note"
    return MachineBusyError(f"this machine is measuring already: {told}; wait for it or stop it")


def _belongs_to_another(path: Path) -> MachineBusyError:
    return MachineBusyError(
        f"the lock {path} belongs to another user; let AUTOTUNE_LOCK name a file that both may write"
    )
