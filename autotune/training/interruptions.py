"""Interruptions that wait until weights and progress fit each other."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from autotune.signals import signal_held

_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGCHLD") if hasattr(signal, name)]
"""Ctrl-C, and the death of a worker, where the system has a signal for that."""


@contextmanager
def interruptions_held() -> Iterator[None]:
    """Tell of Ctrl-C and of a worker's death at the end of a block, and not in its middle.

    Both are raised by handlers of signals, between any two lines: an update that was made and not counted yet would be
    made again after a break.
    """
    with ExitStack() as held:
        for number in _NUMBERS:
            held.enter_context(signal_held(number))
        yield


__all__ = ["interruptions_held"]
