"""How many batches may be on their way at once, by the memory that they take."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from torch.utils.data import IterableDataset

from autotune.data.caches.planning import available_bytes
from autotune.data.facts import sample_nbytes
from autotune.data.stages import apart
from autotune.errors import CapacityError, DatasetError, SampleError
from autotune.units import format_bytes

_logger = logging.getLogger(__name__)

_PROBES = 8
"""Samples that are looked at; the largest counts."""


class InFlight(NamedTuple):
    """Who fetches batches ahead.

    Attributes:
        num_workers: Worker processes.
        prefetch_factor: Batches that each keeps ready.
    """

    num_workers: int
    prefetch_factor: int

    @property
    def batches(self) -> int:
        """Batches in memory at once: those that workers keep ready, and the one in use."""
        return self.num_workers * self.prefetch_factor + 1


def within_memory(wanted: InFlight, batch_bytes: int, limit_bytes: int) -> InFlight:
    """Fetch fewer batches ahead, then start fewer workers, until all batches fit.

    Args:
        wanted: What was asked for.
        batch_bytes: Bytes of one batch.
        limit_bytes: Most bytes of all batches.

    Raises:
        CapacityError: Not even one batch fits.
    """
    allowed = limit_bytes // max(1, batch_bytes)
    if allowed < 1:
        raise CapacityError(
            f"one batch needs {format_bytes(batch_bytes)}, and max_memory_usage allows {format_bytes(limit_bytes)} "
            "of what is available; use smaller batches",
            batch_bytes,
            limit_bytes,
        )
    if wanted.batches <= allowed or not wanted.num_workers:
        return wanted
    prefetch = (allowed - 1) // wanted.num_workers
    if prefetch >= 1:
        return InFlight(wanted.num_workers, prefetch)
    return InFlight(min(wanted.num_workers, allowed - 1), 1)


def settled(
    dataset: Any,
    wanted: InFlight,
    *,
    batch_size: int,
    share: float,
    available: Callable[[], int] = available_bytes,
) -> InFlight:
    """Keep batches on their way within a share of the available memory, by the size of a few samples.

    Raises:
        CapacityError: Not even one batch fits.
        DatasetError: No sample can be read.
    """
    batch_bytes = largest_sample_bytes(dataset) * batch_size
    limit_bytes = int(share * available())
    found = within_memory(wanted, batch_bytes, limit_bytes)
    if found != wanted:
        _logger.info(
            "batches of %s are kept within %s: %d workers with %d batches each instead of %d with %d",
            format_bytes(batch_bytes),
            format_bytes(limit_bytes),
            *found,
            *wanted,
        )
    return found


def largest_sample_bytes(dataset: Any) -> int:
    """Give the bytes of the largest of a few samples, read from a copy of the dataset.

    An iterable dataset that holds an iterator (a generator, an open file) can be read once: samples that were looked
    at would be missing from training, so it is left alone, with a warning, and the answer is 0. One that hides an
    iterator from its attributes cannot be told from others, and loses these samples.

    Raises:
        DatasetError: None of them can be read.
    """
    probed = apart(dataset)
    if isinstance(dataset, IterableDataset):
        if _reads_once(dataset):
            _logger.warning(
                "%s can be read once, so no sample is looked at before training, and max_memory_usage does not limit "
                "its workers; give num_workers and prefetch_factor",
                type(dataset).__name__,
            )
            return 0
        return max(map(sample_nbytes, islice(probed, _PROBES)), default=0)
    count = len(probed)
    sizes = []
    for place in sorted({place * (count - 1) // max(1, _PROBES - 1) for place in range(_PROBES)} if count else ()):
        try:
            sizes.append(sample_nbytes(probed[place]))
        except SampleError:  # the loader meets it too, and does what the dataset's policy says
            continue
    if count and not sizes:
        raise DatasetError(f"none of {min(count, _PROBES)} samples that were looked at can be read")
    return max(sizes, default=0)


def _reads_once(dataset: Any) -> bool:
    """Tell whether an iterable dataset is an iterator, or has one among its attributes."""
    if isinstance(dataset, Iterator):
        return True
    held: list[Any] = []
    for value in vars(dataset).values():
        held += [value, *(value.values() if isinstance(value, Mapping) else value if _is_plain(value) else ())]
    return any(isinstance(value, Iterator) for value in held)


def _is_plain(value: Any) -> bool:
    return isinstance(value, list | tuple | set)


__all__ = ["InFlight", "largest_sample_bytes", "settled", "within_memory"]
