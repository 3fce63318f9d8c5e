"""Brings files into, or out of, the page cache, and checks where they are."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from autotune.constants import COLD_RESIDENT_SHARE, WARM_RESIDENT_SHARE
from autotune.spec import PageCacheState
from autotune.units import MIB

_CHUNK_BYTES = 4 * MIB
_CHECKED_FILES = 1000
"""Files that residency is checked on, evenly spread over all: each takes some 30 microseconds."""


def prepare_page_cache(paths: Sequence[str], wanted: Literal["warm", "cold"]) -> tuple[PageCacheState, float | None]:
    """Bring files into a state of the page cache and verify it.

    Args:
        paths: Files that samples are read from.
        wanted: The state.

    Returns:
        The verified state, `unknown` where it could not be reached or checked, and the share of
        resident pages.
    """
    if not paths:
        return "unknown", None
    if wanted == "cold":
        evict(paths)
    elif (resident_share(paths) or 0.0) < WARM_RESIDENT_SHARE:
        read_once(paths)
    return verify(paths, wanted)


def verify(paths: Sequence[str], wanted: Literal["warm", "cold"]) -> tuple[PageCacheState, float | None]:
    """Check by residency that files are in a state; what cannot be shown is `unknown`."""
    share = resident_share(paths)
    if share is None:
        return "unknown", None
    reached = share < COLD_RESIDENT_SHARE if wanted == "cold" else share >= WARM_RESIDENT_SHARE
    return (wanted if reached else "unknown"), share


def read_once(paths: Iterable[str]) -> None:
    """Read files, so that the page cache holds them as far as it has room."""
    buffer = bytearray(_CHUNK_BYTES)
    for path in paths:
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - unbuffered, thousands of times
                while file.readinto(buffer):
                    pass
        except OSError:
            continue


def evict(paths: Iterable[str]) -> None:
    """Drop files from the page cache; written pages are brought to disk first, since dirty ones stay."""
    for path in paths:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            os.fsync(file)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            continue
        finally:
            os.close(file)


def resident_share(paths: Sequence[str]) -> float | None:
    """Give the share of the files' pages that are in memory.

    None where it cannot be known: `mincore` claims full residency of a file that the process
    neither owns nor can write, and there is none outside Linux.
    """
    step = max(1, len(paths) // _CHECKED_FILES)
    resident, total = 0, 0
    for path in paths[::step]:
        counts = _resident_pages(path)
        if counts is None:
            return None
        resident, total = resident + counts[0], total + counts[1]
    return resident / total if total else None


def total_bytes(paths: Iterable[str]) -> int:
    """Add up the sizes of the files that are there."""
    total = 0
    for path in paths:
        try:
            total += os.stat(path).st_size  # noqa: PTH116 - thousands of times
        except OSError:
            continue
    return total


def _resident_pages(path: str) -> tuple[int, int] | None:
    libc = _libc()
    if libc is None:
        return None
    try:
        stats = os.stat(path)  # noqa: PTH116 - thousands of times
        if stats.st_uid != os.geteuid() and not _may_write(path):
            return None
        if stats.st_size == 0:
            return 0, 0
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _mincore(libc, file, stats.st_size)
    finally:
        os.close(file)


def _may_write(path: str) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _mincore(libc: ctypes.CDLL, file: int, size: int) -> tuple[int, int] | None:
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        return None
    try:
        pages = -(-size // mmap.PAGESIZE)
        states = (ctypes.c_ubyte * pages)()
        if libc.mincore(address, size, states):
            return None
        return int(np.count_nonzero(np.frombuffer(bytes(states), dtype=np.uint8) & 1)), pages
    finally:
        libc.munmap(address, size)


def _libc() -> ctypes.CDLL | None:
    """Find `mmap` and `mincore`; mapping by hand is needed since Python hides a map's address."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mincore") or not hasattr(os, "posix_fadvise"):
        return None
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc
