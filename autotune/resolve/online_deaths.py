"""Deaths of workers are told between steps, however many loaders there are."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]


class _Holder:
    """Stands in for the handler of SIGCHLD while steps run.

    There is one for all loaders: of several, each would take another's for the handler that is put back in the end.
    """

    def __init__(self) -> None:
        self._before: Handler | None = None
        self._steps = 0
        self._came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal, which is told later; between steps at once."""
        if self._steps:
            self._came = True
        elif self._before is not None:
            self._before(number, frame)

    def begin(self) -> bool:
        """Begin a step; False where there is no handler to stand in for, or this thread may not set one."""
        if not _in_main_thread():
            return False
        present: Any = signal.getsignal(signal.SIGCHLD)
        if not self._steps and present is not self:
            if not callable(present):
                return False
            self._before = present
            signal.signal(signal.SIGCHLD, self)
        self._steps += 1
        return True

    def end(self) -> Handler | None:
        """End a step; behind the last one, give the handler that is still to be told, and put it back."""
        self._steps -= 1
        if self._steps or not _in_main_thread():
            return None
        came, self._came = self._came, False
        present: Any = signal.getsignal(signal.SIGCHLD)
        if present is self:
            signal.signal(signal.SIGCHLD, self._before)
        return self._before if came else None


_HOLDER = _Holder()


@contextmanager
def deaths_held(*, workers: bool) -> Iterator[None]:
    """Tell of a worker's death only when the consumer has done with its batch.

    torch raises it from a signal handler, which is in the middle of the consumer's training step as likely as not; here
    nobody could read the missing batches again. Where steps of several loaders interleave, what came is told when none
    is left; until then, torch finds a dead worker where it waits for it.

    Args:
        workers: Whether there are workers.
    """
    if not (workers and _HOLDER.begin()):
        yield
        return
    try:
        yield
    finally:
        late = _HOLDER.end()
    if late is not None:
        late(signal.SIGCHLD, None)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


__all__ = ["deaths_held"]
