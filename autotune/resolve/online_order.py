"""The order of one epoch, drawn once, and what a segment's loader has taken of it and not yet delivered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any


class Order:
    """The batches of indices of one pass, each given once, and again only where it was put back.

    Nothing is drawn before the first one is asked for, so that the sampler draws when a plain loader's would.

    Args:
        batches: What a plain loader takes its batches of indices from.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self._given: Iterable[Any] = batches
        self._left: Iterator[Any] | None = None
        self._back: deque[Any] = deque()

    def begin(self, *, skipped: int = 0) -> None:
        """Begin the pass: the sampler draws its order, and datasets are told the epoch.

        Args:
            skipped: Batches at the beginning that are left out, as a run before this one has had them.
        """
        self._left = iter(self._given)
        deque(islice(self._left, skipped), maxlen=0)
        self._back.extend(islice(self._left, 1))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._back:
            return self._back.popleft()
        if self._left is None:
            self.begin()
            return next(self)
        return next(self._left)

    def put_back(self, batches: Iterable[Any]) -> None:
        """Give these next, in their order."""
        self._back.extendleft(reversed(list(batches)))


class Feed:
    """What the loader of a segment takes its batches of indices from: a part of an order.

    It stands where a DataLoader has its batch sampler. What was taken and not delivered is remembered, so that it can
    be read again where workers die.

    Args:
        order: The order.
        most: Batches of the part; None is the rest.

    Attributes:
        pending: What was taken and not delivered, in order.
    """

    def __init__(self, order: Order, *, most: int | None = None) -> None:
        self.pending: deque[Any] = deque()
        self.follow(order, most=most)

    def follow(self, order: Order, *, most: int | None = None) -> None:
        """Go on with another order, for a loader that is kept over passes."""
        self._order = order
        self._most = most
        self._taken = 0
        self.finished = most == 0
        self.pending.clear()

    def __iter__(self) -> Iterator[Any]:
        while not self.finished:
            try:
                batch = next(self._order)
            except StopIteration:
                self.finished = True
                return
            self.pending.append(batch)
            self._taken += 1
            self.finished = self.finished or self._taken == self._most
            yield batch

    def close(self) -> None:
        """Give no further ones; those that were taken are still delivered."""
        self.finished = True

    @property
    def awaited(self) -> int:
        """Samples of the first one that is pending."""
        batch = self.pending[0]
        return len(batch) if isinstance(batch, Sized) else 1

    def delivered(self) -> int:
        """Take note that the first one that is pending was delivered, and give its samples."""
        samples = self.awaited
        self.pending.popleft()
        return samples

    def take_back(self) -> int:
        """Put what was not delivered back into the order, and give how many batches that are."""
        count = len(self.pending)
        self._order.put_back(self.pending)
        self.pending.clear()
        return count


__all__ = ["Feed", "Order"]
