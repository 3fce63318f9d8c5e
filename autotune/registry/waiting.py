"""Waiting for a locked file or an absent server: for a bounded time, then a clear error."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from autotune.registry.driver_errors import DRIVER_ERRORS, as_registry_error, is_passing

T = TypeVar("T")

SQLITE_WAIT_S = 30.0
"""Longest wait for SQLite's lock: writers hold it for milliseconds, so one that keeps it has gone wrong."""
SERVER_WAIT_S = 120.0
"""Longest wait for a PostgreSQL server: restarts and short outages lose no measurement."""

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


def patiently(work: Callable[[], T], *, wait_s: float, place: str) -> T:
    """Do a whole transaction, again and again while what stops it may pass.

    Args:
        work: The transaction; it must be safe to repeat, as a lost connection may hide that it was committed.
        wait_s: Longest time from the first attempt to the last one's start.
        place: Where the registry is, for the message.

    Raises:
        RegistryError: It failed for good; nothing of the last attempt was written.
    """
    deadline = time.monotonic() + wait_s
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return work()
        except DRIVER_ERRORS as error:
            if not is_passing(error) or time.monotonic() + pause_s > deadline:
                raise as_registry_error(error, place) from error
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
