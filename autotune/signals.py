"""Signals that are told between steps, however many steps hold them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]


class _Holder:
    """Stands in for the handler of a signal while steps run.

    There is one for all steps: of several, each would take another's for the handler that is put back in the end.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        self._number = number
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
        present: Any = signal.getsignal(self._number)
        if not self._steps and present is not self:
            if not callable(present):
                return False
            self._before = present
            signal.signal(self._number, self)
        self._steps += 1
        return True

    def end(self) -> Handler | None:
        """End a step; behind the last one, give the handler that is still to be told, and put it back."""
        self._steps -= 1
        if self._steps or not _in_main_thread():
            return None
        came, self._came = self._came, False
        present: Any = signal.getsignal(self._number)
        if present is self:
            signal.signal(self._number, self._before)
        return self._before if came else None


_HOLDERS: dict[int, _Holder] = {}


@contextmanager
def signal_held(number: int) -> Iterator[None]:
    """Tell the handler of a signal at the end of a block what came while it ran.

    Where several blocks interleave, it is told when none is left. An error of a block goes before a signal, which is
    not told then. Nothing is held outside the main thread, or where no function of Python handles the signal.

    Args:
        number: The signal.
    """
    holder = _HOLDERS.setdefault(number, _Holder(number))
    if not holder.begin():
        yield
        return
    try:
        yield
    finally:
        late = holder.end()
    if late is not None:
        late(number, None)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


__all__ = ["signal_held"]
