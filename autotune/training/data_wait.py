"""How long a training waits for its data: the time in a loader, as a share of the epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from autotune.errors import CheckpointError

_FIGURES = ("first_batch_s", "wait_s", "wall_s")


class TimedBatches:
    """Gives the batches of one pass, and measures how long each was waited for.

    The first batch is counted apart, as starting workers and filling their queues happens but once; the share is
    that of the rest. On an accelerator the backward pass and the update of a batch may still be running when the next
    one is asked for: waiting that they hide costs nothing, and yet counts.

    Args:
        loader: What gives the batches.
        skip: Batches at the start that are read, left out, and not timed, as they were trained on before a break.
        earlier: Figures from before the break, as `figures` gave them.
        after_skip: Called when they are skipped, before the next one is asked for.
        clock: Monotonic seconds.

    Attributes:
        first_batch_s: Time until the first batch was there, in seconds.
        wait_s: Time that later batches were waited for.
        wall_s: Time from the first batch to the end of the pass, or until now.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        *,
        skip: int = 0,
        earlier: dict[str, float] | None = None,
        after_skip: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._loader = loader
        self._skip = skip
        self._after_skip = after_skip
        self._clock = clock
        self._resumed = earlier is not None
        figures = earlier or dict.fromkeys(_FIGURES, 0.0)
        self.first_batch_s, self.wait_s, self.wall_s = (figures[name] for name in _FIGURES)

    @property
    def share(self) -> float:
        """Share of the time after the first batch that was waited for data, 0 to 1."""
        return self.wait_s / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def figures(self) -> dict[str, float]:
        """The figures so far, to go on from after a break."""
        return {name: float(getattr(self, name)) for name in _FIGURES}

    def __iter__(self) -> Generator[Any, None, None]:
        asked_s = self._clock()
        batches = iter(self._loader)
        try:
            yield from self._given(batches, asked_s)
        finally:  # an epoch that is broken off ends its pass, whoever still holds the error
            if batches is not self._loader and isinstance(batches, Generator):
                batches.close()

    def _given(self, batches: Iterator[Any], asked_s: float) -> Iterator[Any]:
        for number in range(self._skip):
            if next(batches, None) is None:
                raise CheckpointError(
                    f"the checkpoint was written after {self._skip} batches of its epoch, and this loader has only "
                    f"{number}; continue with the data and the batch size that the training began with"
                )
        if self._resumed:
            self._after_skip()
            asked_s = self._clock()
        first = not self._resumed  # a first batch was counted before the break
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                self._count(self._clock() - asked_s, wait=True, first=False)
                return
            got_s = self._clock()
            self._count(got_s - asked_s, wait=True, first=first)
            first = False
            yield batch
            del batch  # or it would be kept while the next one is made
            asked_s = self._clock()
            self._count(asked_s - got_s, wait=False, first=False)

    def _count(self, seconds: float, *, wait: bool, first: bool) -> None:
        if first:
            self.first_batch_s += seconds
            return
        self.wall_s += seconds
        if wait:
            self.wait_s += seconds


__all__ = ["TimedBatches"]
