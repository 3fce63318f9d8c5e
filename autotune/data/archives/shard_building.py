"""All missing shards of an archive built, by processes of this machine and whoever else works on the same folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch.utils.data import Dataset

from autotune.data.archives._base import Progress
from autotune.data.archives.shard_claims import Claim, Claims
from autotune.data.archives.shard_folder import ShardFolder, WrittenShard, shard_name
from autotune.data.archives.shard_plan import Sharding, ShardPlan
from autotune.data.archives.shard_processes import in_processes
from autotune.data.archives.shard_writing import SourceWatch, write_shard
from autotune.data.stages import apart

_logger = logging.getLogger(__name__)

_POLL_S = 0.2
"""Time between two looks at what others have done, while there is nothing to do here."""
_LISTED_S = 1.0
"""Time between two counts of what is finished, for the progress."""


@dataclass(frozen=True, kw_only=True)
class Builder:
    """One of those that build the shards of a folder.

    Attributes:
        source: The dataset; a copy of it is read.
        folder: Where shards are built.
        claims: Who is at work on which.
        order: All shards in the order in which this builder takes them.
    """

    source: Dataset[Any]
    folder: ShardFolder
    claims: Claims
    order: Sequence[int]

    @classmethod
    def of(cls, source: Dataset[Any], directory: Path, plan: ShardPlan, sharding: Sharding) -> Self:
        """Give the builder of a folder that takes part as it is told."""
        return cls(
            source=source,
            folder=ShardFolder(directory, plan),
            claims=Claims(directory, sharding.lease_s),
            order=plan.order_of(sharding.rank, sharding.world_size),
        )

    def build_missing(self, *, workers: int = 0, progress: Progress | None = None) -> int:
        """Build shards until all are there, waiting for those that others have in hand, and give how many were built.

        Args:
            workers: Processes, each of which builds whole shards; 0 works in this one.
            progress: Told how many samples are stored, by whomever, as far as is known.

        Raises:
            ArchiveStaleError: The source changed; shards of this builder that may be of the new one were dropped.
            FileNotFoundError: The folder is gone, as another builder has published it.
        """
        tally, built = _Tally(self.folder, progress), 0
        while missing := self.folder.missing(self.order):
            free = self._free(missing)
            tally.begin()
            if not free:
                self._wait(missing, tally)
            elif workers:
                built += in_processes(self.build_free, free, min(workers, len(free)), tally.tell)
            else:
                built += self.build_free(free, tally.tell_one)
        tally.begin()
        return built

    def build_free(self, numbers: Iterable[int], told: Callable[[], None]) -> int:
        """Build those of some shards that nobody else has in hand, in this process; give how many were built.

        Shards that were written are finished together, once the source was seen to be unchanged since: where that takes
        long, several at a time.

        Args:
            numbers: The shards.
            told: Called after each sample.
        """
        reading, watch = apart(self.source), SourceWatch(self.source, self.folder.plan)
        built, written = 0, []
        with self.claims:
            try:
                for number in numbers:
                    written += self._written(reading, number, told)
                    if written and watch.is_due:
                        built += self._finish(watch, written)
                return built + self._finish(watch, written)
            except BaseException:
                self._rescue(watch, written)
                raise

    def _rescue(self, watch: SourceWatch, written: list[tuple[Claim, WrittenShard]]) -> None:
        """Finish what was written before an error, where that is still possible, and remove the rest."""
        with suppress(Exception):
            self._finish(watch, written)
        for _, shard in written:
            with suppress(OSError):
                shard.part.unlink(missing_ok=True)

    def _wait(self, missing: Sequence[int], tally: _Tally) -> None:
        """Wait while others have all missing shards in hand, until one is finished or free."""
        _logger.info("waiting for %d shards that other builders have in hand", len(missing))
        while len(self.folder.missing(missing)) == len(missing) and not self._free(missing):
            time.sleep(_POLL_S)
            tally.tell(0)

    def _free(self, numbers: Sequence[int]) -> list[int]:
        return [number for number in numbers if self.claims.is_free(shard_name(number))]

    def _written(
        self, reading: Dataset[Any], number: int, told: Callable[[], None]
    ) -> list[tuple[Claim, WrittenShard]]:
        """Claim a shard and write it; nothing where another builder has it in hand or has finished it."""
        claim = None if self.folder.finished(number) else self.claims.take(shard_name(number))
        if claim is None:
            return []
        if self.folder.finished(number):  # and released in this moment
            self.claims.release(claim)
            return []
        if claim.is_taken_over:
            self.folder.remove_parts(number)
        try:
            return [(claim, write_shard(reading, self.folder, number, told))]
        except FileNotFoundError:
            if claim.current:
                raise
            self.claims.release(claim)  # taken over while this process was frozen, and what it wrote was removed
            return []

    def _finish(self, watch: SourceWatch, written: list[tuple[Claim, WrittenShard]]) -> int:
        """Finish what was written, but for shards that were taken over meanwhile, and give how many were finished."""
        if not written:
            return 0
        watch.check()
        finished = 0
        while written:
            claim, shard = written[0]
            finished += self._is_finished(claim, shard)
            self.claims.release(claim)
            del written[0]
        return finished

    def _is_finished(self, claim: Claim, shard: WrittenShard) -> bool:
        """Finish a shard, unless another builder has taken it over; tell which of both."""
        try:
            if claim.current:
                self.folder.finish(shard)
                return True
        except FileNotFoundError:  # where it was taken over in between, what was written is removed
            if claim.current:
                raise
        shard.part.unlink(missing_ok=True)
        return False


class _Tally:
    """Tells how many samples are stored: those that are written here, and shards that others finish."""

    def __init__(self, folder: ShardFolder, progress: Progress | None) -> None:
        self._folder = folder
        self._progress = progress
        self._before = self._written = self._finished = self._told = 0
        self._listed_s = 0.0

    def begin(self) -> None:
        """Count anew from the shards that are finished."""
        if self._progress is not None:
            self._list()
            self._before = self._finished
            self.tell(0)

    def tell(self, written: int) -> None:
        """Tell of so many samples that were written here since `begin`."""
        self._written = written
        if self._progress is None:
            return
        if time.monotonic() - self._listed_s > _LISTED_S:
            self._list()
        count = self._folder.plan.count
        done = min(count, max(self._before + written, self._finished))
        if done > self._told:
            self._told = done
            self._progress(done, count)

    def tell_one(self) -> None:
        """Tell of one more sample."""
        self.tell(self._written + 1)

    def _list(self) -> None:
        plan = self._folder.plan
        missing = self._folder.missing(range(plan.shards))
        self._finished = plan.count - sum(len(plan.places(number)) for number in missing)
        self._listed_s = time.monotonic()
