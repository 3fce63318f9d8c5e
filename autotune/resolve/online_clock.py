"""The time of one segment: its window, the share of waiting, and what changing to it cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from autotune.constants import WINDOW_MIN_BATCHES
from autotune.data.facts import sample_nbytes
from autotune.resolve.online_order import Feed
from autotune.resolve.online_plan import Ask
from autotune.resolve.online_verdict import Seen


@dataclass
class SegmentClock:
    """Takes the times of a segment while it runs, and ends it where that is due.

    A queue that is filled while the first batch is waited for makes the first batches look fast, and a queue that is
    drained at the end makes the last ones look fast. So the window leaves out, on either side, as many batches as the
    queue takes: within it each batch that is consumed is one that is made. The segment's loader starts when the segment
    does, and nothing of it is read before.

    Args:
        ask: The segment.
        feed: What its loader takes indices from.
        now: Clock, in seconds.
        synchronize: Waits for the device; called at the edges of the window only.

    Attributes:
        asked_s: Readings when a batch was asked for; the last one is when there was none.
        arrived_s: Readings when it came.
        samples: Samples of each.
        began_s: Reading when the segment began.
        ended_s: Reading when its workers had ended.
        futile: Whether it was cut short for being far behind.
        batch_bytes: Bytes of the largest batch.
    """

    ask: Ask
    feed: Feed
    now: Callable[[], float]
    synchronize: Callable[[], None]
    asked_s: list[float] = field(default_factory=list)
    arrived_s: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    began_s: float = 0.0
    ended_s: float = 0.0
    futile: bool = False
    batch_bytes: int = 0
    _tail_begun: bool = False

    def begin(self) -> None:
        """Take the time before the loader is made."""
        self.began_s = self.now()

    def wait(self) -> None:
        """Take the time when the consumer wants a batch."""
        count = len(self.arrived_s)
        if not self.feed.finished and self._is_over(count, self.now()):
            self.feed.close()
        if count == self.ask.lead or (self.feed.finished and not self._tail_begun):
            self.synchronize()
        self._tail_begun = self.feed.finished
        self.asked_s.append(self.now())

    def arrive(self, samples: int, batch: Any) -> None:
        """Take the time when the batch is there."""
        now_s = self.now()
        self.batch_bytes = max(self.batch_bytes, sample_nbytes(batch))  # first, as a batch of odd objects may raise
        self.arrived_s.append(now_s)
        self.samples.append(samples)

    def end(self) -> None:
        """Take the time when nothing of the segment is left."""
        self.ended_s = self.now()

    def _is_over(self, count: int, now_s: float) -> bool:
        self.futile = self.futile or self._is_futile(count, now_s)
        if self.futile:
            return True
        inside = count - self.ask.lead
        if self.ask.window_batches is not None or count < self.ask.fewest - self.ask.tail:
            return False
        return now_s - self.asked_s[self.ask.lead] >= self.ask.window_s and inside == self.ask.rounded(inside)

    def _is_futile(self, count: int, now_s: float) -> bool:
        """Tell whether batches come far too slowly, once each worker has had its first ones, which wait for its start.

        They may still be made to look fast by a filled queue: what is too slow even so is given up.
        """
        least = max(WINDOW_MIN_BATCHES, self.ask.setting.num_workers)
        if self.ask.give_up_below is None or count < self._settled + least:
            return False
        return _rate(self.samples[self._settled :], now_s - self.asked_s[self._settled]) < self.ask.give_up_below

    @property
    def _settled(self) -> int:
        return min(self.ask.lead, max(1, 2 * self.ask.setting.num_workers))

    @property
    def batches(self) -> int:
        """Batches that were delivered."""
        return len(self.arrived_s)

    @property
    def seconds(self) -> float:
        """Time from before the loader was made until its workers had ended."""
        return self.ended_s - self.began_s

    @property
    def switching_s(self) -> float:
        """Time until the first batch where workers are started, and of ending them; that of making a loader else."""
        if not self.arrived_s:
            return self.seconds
        first = self.arrived_s[0] if self.ask.setting.num_workers else self.asked_s[0]
        after = self.ended_s - self.asked_s[-1] if len(self.asked_s) > self.batches else 0.0
        return first - self.began_s + after

    def seen(self) -> Seen | None:
        """Give what the window showed; None where the segment was too short for one."""
        if self.futile:
            first, last = self._settled, self.batches
        else:
            first, last = self.ask.lead, self.batches - self.ask.tail
        if self.batches < self.ask.fewest and not self.futile:
            return None
        seconds = self.asked_s[last] - self.asked_s[first]
        waited = math.fsum(
            arrived - asked for asked, arrived in zip(self.asked_s[first:last], self.arrived_s[first:last], strict=True)
        )
        return Seen(
            setting=self.ask.setting,
            samples_per_s=_rate(self.samples[first:last], seconds),
            wait_share=min(1.0, waited / seconds) if seconds > 0 else 0.0,
            batches=last - first,
            futile=self.futile,
            batch_bytes=self.batch_bytes,
        )


def _rate(samples: list[int], seconds: float) -> float:
    return sum(samples) / max(seconds, 1e-9)


__all__ = ["SegmentClock"]
