"""A circuit breaker: what has just failed is left alone for a while."""

from __future__ import annotations

from collections.abc import Callable


class Breaker:
    """Says when to leave something alone.

    Args:
        rest_s: How long it is left alone after a failure.
        clock: Monotonic seconds.
    """

    def __init__(self, rest_s: float, clock: Callable[[], float]) -> None:
        self._rest_s = rest_s
        self._clock = clock
        self._resting_until: float | None = None

    @property
    def resting(self) -> bool:
        """Whether it is to be left alone now."""
        return self._resting_until is not None and self._clock() < self._resting_until

    def trip(self) -> None:
        """Start a rest."""
        self._resting_until = self._clock() + self._rest_s

    def reset(self) -> None:
        """End the rest."""
        self._resting_until = None
