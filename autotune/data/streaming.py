"""Archives read from front to back: each worker of each rank its own range, through a shuffle buffer."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any, Protocol, Self

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from autotune.data.epochs import StreamPasses
from autotune.data.shared_memory import SharedNumbers
from autotune.data.stages import Augmentation, begin_epoch, decode_stage, has_augment
from autotune.errors import SampleError, SpecError
from autotune.units import MIB

DEFAULT_BUFFER = 1024
_BUFFER_BYTES_MAX = 64 * MIB
"""Most bytes that the buffer of one worker holds; large samples mean fewer of them."""
_RUN_BYTES = 4 * MIB
"""Samples that are read in one go; shuffling takes such runs in random order before the buffer mixes them."""
_TIMES_SET, _EPOCH, _RANK, _WORLD_SIZE, _SLOTS = range(5)


class StreamingReader(Protocol):
    """What an archive's format opens, where it can be read from front to back."""

    def __len__(self) -> int:
        """Give the number of samples."""

    def stream(self, first: int, stop: int) -> Iterator[Any]:
        """Give the samples of a range in order, each with memory of its own."""

    def range_bytes(self, first: int, stop: int) -> int:
        """Tell how many bytes a range of samples has, roughly."""


class StreamedArchive(IterableDataset[Any]):
    """The samples of an archive in streaming order.

    Every epoch gives each sample exactly once over all ranks and workers; no two ranges differ by more
    than one sample. Shuffled, the order depends on seed, epoch, number of workers and world size alone:
    it is not that of a shuffled map-style loader.

    Each pass is the next epoch, from one that is set on too, and one epoch for all its workers. Its order is its own;
    augmentation by a source with an epoch (`StagedDataset`) is that of the pass over the source that began last, so
    passes that overlap need a source each.

    Args:
        source: The dataset that the archive was built from; it decodes and augments.
        reader: What the archive's format opened.
        encoded: Whether the archive holds original bytes, which the source decodes.
        buffer: Samples in the shuffle buffer of each worker.
        rank: Rank of this process; None asks `torch.distributed`, and is 0 without a process group.
        world_size: Number of ranks; given with `rank`.
        hold: Keeps the archive from being removed for as long as it is referred to.

    Attributes:
        own_order: Whether the caller has set the order, which a loader then leaves as it is.
    """

    own_order = False

    def __init__(
        self,
        source: Dataset[Any],
        reader: Any,
        *,
        encoded: bool,
        buffer: int = DEFAULT_BUFFER,
        rank: int | None = None,
        world_size: int | None = None,
        hold: object | None = None,
    ) -> None:
        if buffer < 1:
            raise SpecError(f"buffer must be at least 1 sample, got {buffer}")
        self.source = source
        self._hold = hold
        self.buffer = buffer
        self.augments_samples = has_augment(source)
        self._reader: StreamingReader = reader
        self._encoded = encoded
        self.divide(rank, world_size)
        # Shared with running workers: how often the caller set an epoch, which one, and the rank as it was in the
        # main process.
        self._shared = SharedNumbers(_SLOTS)
        self._passes = StreamPasses()
        self._turns: dict[int, int] = {}
        self._seed = 0
        self._shuffle = False
        self._whole_batches = 1
        self._find_rank()

    def order_by(self, seed: int | None, shuffle: bool, *, batch_size: int | None = None) -> None:
        """Set the order of the coming epochs.

        Args:
            seed: Seed of the shuffling; None draws one from torch's generator.
            shuffle: Whether to shuffle at all.
            batch_size: Gives every worker but a rank's last one a multiple of so many samples, so that a loader
                gives as many batches as its length says; None keeps the ranges equal.
        """
        self._seed = int(torch.empty((), dtype=torch.int64).random_().item()) if seed is None else seed
        self._shuffle = shuffle
        self._whole_batches = batch_size or 1

    @property
    def order_seed(self) -> int:
        """Seed of the shuffling, which a training that goes on after a break sets again."""
        return self._seed

    @order_seed.setter
    def order_seed(self, seed: int) -> None:
        self._seed = seed

    def divide(self, rank: int | None, world_size: int | None) -> None:
        """Give only the part of one rank from now on; None asks `torch.distributed` again.

        Raises:
            SpecError: One is given without the other, or they contradict each other.
        """
        if (rank is None) != (world_size is None):
            raise SpecError(f"rank and world_size are given together, got rank={rank} and world_size={world_size}")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise SpecError(f"rank must be under world_size, got rank={rank} and world_size={world_size}")
        self._given_rank = None if rank is None or world_size is None else (rank, world_size)

    def for_loader(self) -> Self:
        """Give a copy with an order and passes of its own; an epoch that is set on one of them is set for both."""
        made = copy.copy(self)
        made.__dict__["_passes"] = StreamPasses()
        return made

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, of order and augmentation, of the pass that begins next; later ones go on from it.

        Running workers follow, and so do loaders that were made over the stream.
        """
        self._shared.values[_EPOCH] = epoch
        self._shared.values[_TIMES_SET] += 1

    def begin_epoch(self, epoch: int, *, steered: bool = False) -> None:
        """Set the next epoch where the caller steers it at the loader; without that each pass takes the next."""
        if steered:
            self._passes.set_epoch(epoch, told=int(self._shared.values[_TIMES_SET]))

    def __len__(self) -> int:
        """Give the number of samples of this rank."""
        first, stop = part_of(len(self._reader), *self._find_rank())
        return stop - first

    def __iter__(self) -> Iterator[Any]:
        # Counted now and not at the first sample, which a worker may never be asked for when the caller stops early.
        return self._samples(self._begin_epoch())

    def _samples(self, epoch: int) -> Iterator[Any]:
        augmentation = Augmentation()
        augmentation.set_epoch(None, epoch)
        for index, stored in self._ordered(epoch):
            sample = self._decoded(stored, index)
            yield augmentation.apply(self.source, sample, index) if self.augments_samples else sample

    def worker_range(self, worker: int, workers: int) -> tuple[int, int]:
        """Give the first sample of a worker of this rank, and the one after its last."""
        first, stop = part_of(len(self._reader), *self._find_rank())
        if self._whole_batches == 1:
            start, end = part_of(stop - first, worker, workers)
            return first + start, first + end
        step = self._whole_batches
        start, end = part_of(-(-(stop - first) // step), worker, workers)
        return min(stop, first + start * step), min(stop, first + end * step)

    def _begin_epoch(self) -> int:
        info = get_worker_info()
        told = int(self._shared.values[_TIMES_SET]), int(self._shared.values[_EPOCH])
        if info is None:
            epoch = self._passes.begin(0, 0, workers=1, told=told)
        else:
            turn = self._turns.get(info.seed, 0)  # of this worker, which may be a thread
            self._turns[info.seed] = turn + 1
            epoch = self._passes.begin(info.seed - info.id, turn, workers=info.num_workers, told=told)
        begin_epoch(self.source, epoch, steered=self._passes.steered)  # by every worker, for what is its own
        return epoch

    def _ordered(self, epoch: int) -> Iterator[tuple[int, Any]]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        first, stop = self.worker_range(worker, workers)
        if not self._shuffle:
            yield from zip(range(first, stop), self._reader.stream(first, stop), strict=True)
            return
        rank, world_size = self._find_rank()
        # A text, as hash() of a tuple of numbers is no promise over versions of Python.
        generator = random.Random(f"{self._seed} {epoch} {rank} {world_size} {worker} {workers}")  # noqa: S311
        yield from self._shuffled(first, stop, generator)

    def _shuffled(self, first: int, stop: int, generator: random.Random) -> Iterator[tuple[int, Any]]:
        sample_bytes = self._reader.range_bytes(first, stop) // max(1, stop - first)
        capacity = max(1, min(self.buffer, _BUFFER_BYTES_MAX // max(1, sample_bytes)))
        step = max(1, min(capacity, _RUN_BYTES // max(1, sample_bytes)))
        runs = [(start, min(stop, start + step)) for start in range(first, stop, step)]
        generator.shuffle(runs)
        waiting: list[tuple[int, Any]] = []
        for start, end in runs:
            for item in zip(range(start, end), self._reader.stream(start, end), strict=True):
                if len(waiting) < capacity:
                    waiting.append(item)
                    continue
                place = generator.randrange(capacity)
                chosen, waiting[place] = waiting[place], item
                yield chosen
        generator.shuffle(waiting)
        while waiting:
            yield waiting.pop()

    def _decoded(self, stored: Any, index: int) -> Any:
        if not self._encoded:
            return stored
        try:
            return decode_stage(self.source, index, stored)
        except SampleError as error:
            if error.path is not None:
                raise
            raise SampleError(f"sample {index} of the archive: {error.message}") from error

    def _find_rank(self) -> tuple[int, int]:
        """Give rank and world size; a worker that was started anew has no process group and is told."""
        if self._given_rank is not None:
            return self._given_rank
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self._shared.values[_RANK] = torch.distributed.get_rank()
            self._shared.values[_WORLD_SIZE] = torch.distributed.get_world_size()
        return int(self._shared.values[_RANK]), max(1, int(self._shared.values[_WORLD_SIZE]))

    def __getattr__(self, name: str) -> Any:
        source = self.__dict__.get("source")
        if source is None or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"{type(self).__qualname__} has no attribute {name!r}")
        return getattr(source, name)

    def __getstate__(self) -> dict[str, Any]:
        self._find_rank()
        return self.__dict__


def part_of(count: int, part: int, parts: int) -> tuple[int, int]:
    """Divide a range into contiguous parts that differ by at most one, and give one of them.

    The parts are disjoint and complete; the first ones are the larger.
    """
    share, larger = divmod(count, parts)
    first = part * share + min(part, larger)
    return first, first + share + (part < larger)
