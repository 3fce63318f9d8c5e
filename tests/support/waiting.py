"""Waiting for what other processes do."""

import time


def until(condition, what, *, within_s=60):
    """Wait until a condition gives something, and give that."""
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)
    return found
