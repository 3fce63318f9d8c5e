"""Reading batches under one setting, and going on where its workers die."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from autotune.resolve.online_deaths import deaths_held
from autotune.resolve.online_order import Feed


class Clock(Protocol):
    """What is told when batches are asked for and come."""

    def begin(self) -> None:
        """The loader is about to be made."""

    def wait(self) -> None:
        """The consumer wants a batch."""

    def arrive(self, samples: int, batch: Any) -> None:
        """The batch is there."""

    def end(self) -> None:
        """Nothing of the loader's processes is left."""


class Untimed:
    """Takes no times: outside trials."""

    def begin(self) -> None:
        """Do nothing."""

    def wait(self) -> None:
        """Do nothing."""

    def arrive(self, samples: int, batch: Any) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


class Segment:
    """A part of a pass that is read under one setting.

    Args:
        make: Makes or gives the loader; called when the segment begins.
        feed: What the loader takes its indices from.
        workers: Whether the loader has worker processes.
        guarded: Whether a failure ends the segment, with what was not delivered put back into the order; else it is the
            caller's.
        clock: Takes the times.

    Attributes:
        failure: What failed; None while nothing has.
        missing: Batches that were put back then.
        delivered: Batches that the consumer got.
    """

    def __init__(
        self,
        make: Callable[[], Iterable[Any]],
        feed: Feed,
        *,
        workers: bool,
        guarded: bool,
        clock: Clock | None = None,
    ) -> None:
        self.failure: str | None = None
        self.missing = 0
        self.delivered = 0
        self._make = make
        self._feed = feed
        self._workers = workers
        self._guarded = guarded
        self._clock = clock or Untimed()

    def batches(self) -> Iterator[Any]:
        """Give the batches; workers that are not kept have ended when it ends, however it ends."""
        try:
            self._clock.begin()
            yield from self._read()
        except Exception as error:
            if not self._guarded:
                raise
            lines = str(error).strip().splitlines() or [""]
            self.failure = f"{type(error).__name__}: {lines[-1]}"  # the first ones tell of the worker, this one why
            self.missing = self._feed.take_back()
        self._clock.end()

    def _read(self) -> Iterator[Any]:
        # The iterator is in no other frame: when this one goes, so do the workers.
        batches = iter(self._make())
        while True:
            self._clock.wait()
            try:
                batch = next(batches)
            except StopIteration:
                return
            with deaths_held(workers=self._workers):
                # the clock first: where it cannot tell the size of a batch, that one is read again like those behind it
                self._clock.arrive(self._feed.awaited, batch)
                self._feed.delivered()
                self.delivered += 1
                yield batch
                batch = None  # while the next one is made, only the consumer may hold it


__all__ = ["Clock", "Segment", "Untimed"]
