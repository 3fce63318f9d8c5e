"""Batches that are loaded ahead and kept in memory."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any

import torch

from autotune.data.caches.planning import available_bytes
from autotune.data.facts import sample_nbytes
from autotune.errors import CapacityError, DatasetError, SpecError
from autotune.measure.batches import move_batch, resolve_device
from autotune.units import format_bytes

MEMORY_SHARE = 0.5
"""Share of the memory that is available at the start: the other half stays for training."""


class PrefetchedBatches:
    """Batches in memory, given in the order in which they were loaded, as often as wanted.

    What is given is a copy, made where the batch lies, so that work on it in place (`images.sub_(mean)`) changes no
    later pass.

    Args:
        batches: The batches.
        size_bytes: Bytes of their arrays.
        device: Where they lie.
    """

    def __init__(self, batches: list[Any], *, size_bytes: int, device: torch.device) -> None:
        self._batches = batches
        self.size_bytes = size_bytes
        self.device = device

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        return map(copy.deepcopy, self._batches)

    def __getitem__(self, index: int) -> Any:
        return copy.deepcopy(self._batches[index])

    def __repr__(self) -> str:
        return f"PrefetchedBatches({len(self)} batches, {format_bytes(self.size_bytes)} on {self.device})"


def prefetch_data(
    dataloader: Iterable[Any],
    *,
    num_batches: int | None = None,
    device: str | torch.device = "cpu",
    memory_share: float = MEMORY_SHARE,
) -> PrefetchedBatches:
    """Load batches now and keep them in memory, so that passing over them costs no more than a copy of each.

    Augmentation is as it was drawn when they were loaded; a cache (`create_dataloader(..., cache="memory")`) keeps
    samples and augments them anew.

    Args:
        dataloader: A loader, or any iterable of batches.
        num_batches: Batches to load, fewer where an epoch has no more; None is a whole epoch.
        device: Where they are kept; `auto` is the first accelerator.
        memory_share: Share of the available memory (of the device, where it has its own) that they may take.

    Raises:
        SpecError: A number makes no sense.
        CapacityError: They do not fit; with a known number of batches this is seen at the first.
        DatasetError: There is no batch.
    """
    if num_batches is not None and num_batches < 1:
        raise SpecError(f"num_batches must be at least 1, got {num_batches}; None is a whole epoch")
    if not 0 < memory_share <= 1:
        raise SpecError(f"memory_share is a share above 0 and at most 1, got {memory_share}")
    target = torch.device(device) if isinstance(device, torch.device) else resolve_device(device)
    limit_bytes = int(memory_share * _available_bytes(target))
    expected = _expected(dataloader, num_batches)
    kept: list[Any] = []
    held = 0
    for batch in islice(iter(dataloader), num_batches):
        size = sample_nbytes(batch)
        held += size
        _check(held, size * (expected or 1) if not kept else held, limit_bytes, target)
        kept.append(_kept(batch, target))
    if not kept:
        raise DatasetError("there is no batch to prefetch: the dataset is empty, or smaller than a batch")
    return PrefetchedBatches(kept, size_bytes=held, device=target)


def _expected(loader: Any, num_batches: int | None) -> int | None:
    try:
        count = len(loader) if isinstance(loader, Sized) else None
    except (TypeError, NotImplementedError):
        count = None
    return min((number for number in (count, num_batches) if number is not None), default=None)


def _check(held: int, needed: int, limit_bytes: int, device: torch.device) -> None:
    needed = max(held, needed)
    if needed > limit_bytes:
        raise CapacityError(
            f"prefetched batches may take {format_bytes(limit_bytes)} on {device}, and these need "
            f"{format_bytes(needed)}; lower num_batches or raise memory_share",
            needed,
            limit_bytes,
        )


def _available_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_bytes()


def _kept(batch: Any, device: torch.device) -> Any:
    """Give a batch in memory of its own: those of workers hold a file descriptor for every tensor."""
    return copy.deepcopy(batch) if device.type == "cpu" else move_batch(batch, device)


__all__ = ["MEMORY_SHARE", "PrefetchedBatches", "prefetch_data"]
