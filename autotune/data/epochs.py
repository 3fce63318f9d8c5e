"""The epoch that something random is drawn for, and the passes over streams that count epochs."""

from __future__ import annotations

import weakref

import numpy as np
import numpy.typing as npt

from autotune.data.shared_memory import SharedNumbers

_NUMBER, _KEPT, _SLOTS = range(3)
_NEXT, _BEGUN, _STEERED, _TOLD, _HEAD = range(5)
_SESSION, _TURN, _AWAITED, _EPOCH, _COLUMNS = range(5)
_ROWS = 64
"""Passes of a stream that are remembered, for workers of theirs that have yet to begin."""


class Epoch(SharedNumbers):
    """Number of the current epoch, seen by running workers however they were started; 0 at first."""

    _leader: weakref.ref[object] | None = None

    def __init__(self) -> None:
        super().__init__(_SLOTS)

    @property
    def number(self) -> int:
        """The epoch."""
        return int(self.values[_NUMBER])

    @property
    def is_led(self) -> bool:
        """Whether somebody leads it who is still there; copies are led by nobody."""
        return self._leader is not None and self._leader() is not None

    def lead(self, leader: object) -> None:
        """Make something the leader, for as long as it lives or until another leads."""
        self._leader = weakref.ref(leader)

    def set(self, number: int) -> None:
        """Set the epoch as a caller does: passes of loaders leave it as it is."""
        self.values[_NUMBER] = number
        self.values[_KEPT] = 1

    def begin(self, number: int, *, steered: bool) -> bool:
        """Enter the epoch of a pass that begins, and tell whether it was entered.

        Args:
            number: The epoch.
            steered: Whether the caller set it where the pass begins, which wins over what was set here before.
        """
        if self.values[_KEPT] and not steered:
            return False
        self.values[_NUMBER] = number
        self.values[_KEPT] = 0
        return True


class StreamPasses(SharedNumbers):
    """Counts the passes over a stream, each once for all its workers, however many there are or were.

    The first pass is epoch 0, the next one epoch 1 and so on, from an epoch that is set too.
    """

    def __init__(self) -> None:
        super().__init__(_HEAD + _ROWS * _COLUMNS)

    @property
    def steered(self) -> bool:
        """Whether the caller has set an epoch."""
        return bool(self.values[_STEERED])

    def set_epoch(self, epoch: int, *, told: int = 0) -> None:
        """Set the epoch of the pass that begins next; it wins over those that were told so often before."""
        with self._memory.locked():
            self._steer(epoch, told)

    def begin(self, session: int, turn: int, *, workers: int, told: tuple[int, int] = (0, 0)) -> int:
        """Begin a pass in one of its workers, and give its epoch, the same in each of them.

        Args:
            session: A number that workers share with those they were started with, and with no others.
            turn: How many passes this worker began before in this session.
            workers: How many workers begin the pass; 1 without workers.
            told: How often an epoch was set for all loaders over the stream, and which one last.
        """
        with self._memory.locked():
            rows = self.values[_HEAD:].reshape(_ROWS, _COLUMNS)
            begun = (rows[:, _SESSION] == session) & (rows[:, _TURN] == turn) & (rows[:, _AWAITED] > 0)
            if begun.any():
                row: npt.NDArray[np.int64] = rows[begun.argmax()]
            else:
                row = self._opened(rows, told)
                row[:_EPOCH] = session, turn, workers
            row[_AWAITED] -= 1
            return int(row[_EPOCH])

    def _opened(self, rows: npt.NDArray[np.int64], told: tuple[int, int]) -> npt.NDArray[np.int64]:
        if told[0] != self.values[_TOLD]:
            self._steer(told[1], told[0])
        row: npt.NDArray[np.int64] = rows[self.values[_BEGUN] % _ROWS]
        row[_EPOCH] = self.values[_NEXT]
        self.values[_NEXT] += 1
        self.values[_BEGUN] += 1
        return row

    def _steer(self, epoch: int, told: int) -> None:
        self.values[_NEXT] = epoch
        self.values[_STEERED] = 1
        self.values[_TOLD] = told


__all__ = ["Epoch", "StreamPasses"]
