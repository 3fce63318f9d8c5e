"""Reading one pass part by part: the loader of each part, and what is read again where one fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from autotune.data.build import make_loader
from autotune.data.stages import apart
from autotune.resolve.online_clock import SegmentClock
from autotune.resolve.online_order import Feed, Order
from autotune.resolve.online_segment import Segment
from autotune.resolve.online_setting import SAFE, Setting

_Batch = TypeVar("_Batch")

_SEED_STEP = 1_000_003
"""What the seeds of two loaders of a pass differ by: workers of neither draw what those of the other do."""


@dataclass(kw_only=True)
class Pass:
    """One pass over a loader.

    Attributes:
        epoch: Its number.
        order: Its order.
        seed: What a plain loader would seed its workers with.
        states: States of the generators before anything was drawn.
        position: Batches that the consumer got, with those that were skipped.
        loaders: Loaders that were made in it.
        own: Copy of the dataset that is read in this process while workers may yet be forked.
    """

    epoch: int
    order: Order
    seed: int
    states: list[torch.Tensor]
    position: int = 0
    loaders: int = 0
    own: Any = None

    def counted(self, batch: _Batch) -> _Batch:
        """Take note that the consumer gets a batch, and give it."""
        self.position += 1
        return batch


class Reading:
    """Reads passes of a plain loader under any setting.

    Args:
        plain: The loader that says what a batch is.
        worker_arguments: Arguments that torch takes with workers only.

    Attributes:
        forks: Whether workers may yet be forked after something was read in this process, which then is read from a
            copy of the dataset: a file that is open here must not be shared with them.
    """

    def __init__(self, plain: DataLoader[Any], worker_arguments: Mapping[str, Any]) -> None:
        self.forks = True
        self._plain = plain
        self._worker_arguments = dict(worker_arguments)
        self._persistent = plain.num_workers == 0 or plain.persistent_workers
        self._kept: tuple[Setting, DataLoader[Any], Feed] | None = None

    def part(self, this: Pass, setting: Setting, feed: Feed, *, clock: SegmentClock | None = None) -> Segment:
        """Make a segment with a loader of its own; where it fails, that ends it, unless it is the safe setting."""

        def make() -> DataLoader[Any]:
            return self._loader(this, setting, feed, persistent=False)

        return Segment(make, feed, workers=setting.num_workers > 0, guarded=setting != SAFE, clock=clock)

    def rest(self, this: Pass, setting: Setting) -> Segment:
        """Make a segment of the rest of a pass, whose loader and workers serve the passes to come, too."""
        if self._kept is None or self._kept[0] != setting:
            self.let_go()
            feed = Feed(this.order)
            self._kept = (setting, self._loader(this, setting, feed, persistent=self._persistent), feed)
        feed = self._kept[2]
        feed.follow(this.order)
        return Segment(self._kept_loader, feed, workers=setting.num_workers > 0, guarded=setting != SAFE)

    def let_go(self) -> None:
        """End the workers that are kept."""
        self._kept = None

    def given(self, this: Pass, segment: Segment) -> Iterator[Any]:
        """Give the batches of a segment, and where it failed those that are missing, read in this process.

        What fails then is the dataset's own error, and goes to the caller as it would from a plain loader.
        """
        yield from map(this.counted, segment.batches())  # no frame of ours holds a batch while the next one is made
        if segment.failure is not None:
            self.let_go()
            again = self.part(this, SAFE, Feed(this.order, most=segment.missing))
            yield from self.given(this, again)

    def _loader(self, this: Pass, setting: Setting, feed: Feed, *, persistent: bool) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed((this.seed + this.loaders * _SEED_STEP) % 2**63)
        this.loaders += 1
        workers = self._worker_arguments if setting.num_workers else {}
        loader: DataLoader[Any] = make_loader(
            self._dataset(this, setting),
            setting.dataloader_arguments(persistent=persistent),
            generator=generator,
            batch_sampler=feed,
            collate_fn=self._plain.collate_fn,
            worker_init_fn=self._plain.worker_init_fn,
            **workers,
        )
        return loader

    def _kept_loader(self) -> Iterable[Any]:
        return () if self._kept is None else self._kept[1]

    def _dataset(self, this: Pass, setting: Setting) -> Any:
        if setting.num_workers or not self.forks:
            return self._plain.dataset
        if this.own is None:
            this.own = apart(self._plain.dataset)
        return this.own


__all__ = ["Pass", "Reading"]
