"""What a batch is to a measurement: how many samples it has, and how it gets to the device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

_LOOKED_AT = 8
"""Parts of a long list that are looked at: counting runs between batches, and its time must not grow with them."""


class SampleCounter:
    """Counts the samples of one pass's batches, whatever their nesting; None where nothing tells.

    A list may be samples (`collate_fn=list`) or parts (`[images, targets]`). Parts agree in how many samples they
    have, and a batch always has as many of them; samples are of one form, and in a full batch as many as the batch
    size. Where a batch could be both, those before it decide.

    Args:
        batch_size: Samples in a full batch; None is unknown.
    """

    def __init__(self, batch_size: int | None) -> None:
        self._batch_size = batch_size
        self._lists_are_samples: bool | None = None
        self._fitted = False
        self._length: int | None = None

    def __call__(self, batch: Any) -> int | None:
        """Count the samples of the next batch."""
        if not _is_list(batch):
            sizes = _sizes(batch)
            found = None if sizes is None else self._chosen(sizes, batch)
            too_many = found is not None and self._batch_size is not None and found > self._batch_size
            return None if too_many else found  # rows that are no samples
        sizes = _shared_sizes(batch)
        if sizes is None or self._are_samples(batch, sizes):
            return len(batch)
        return self._capped(self._chosen(sizes, batch))

    def or_full(self, batch: Any) -> int:
        """Count the samples of the next batch; one that tells nothing is full, or a sample where no size is known."""
        found = self(batch)
        return (self._batch_size or 1) if found is None else found

    def _are_samples(self, batch: Sequence[Any], sizes: set[int]) -> bool:
        """Tell whether a list is one of samples, and keep it where that is certain."""
        if self._lists_are_samples is None:
            self._lists_are_samples = self._certain(batch, sizes)
        self._length = len(batch) if self._length is None else self._length
        if self._lists_are_samples is not None:
            return self._lists_are_samples
        if self._batch_size == len(batch) and self._batch_size in sizes:
            self._fitted = True  # both at once, and as many either way
            return False
        return not _is_array(batch[0]) and not (len(batch) == 1 and isinstance(batch[0], Mapping))

    def _certain(self, batch: Sequence[Any], sizes: set[int]) -> bool | None:
        count, full = len(batch), self._batch_size
        if not _alike(batch):
            return not sizes and count == full and _first_size(batch) != full
        if self._length not in (None, count):
            return True
        if full is None:
            return None
        if full in sizes:
            return None if count == full else False
        if count == full:
            return not self._fitted
        return True if sizes and all(size > full for size in sizes) else None

    def _chosen(self, sizes: set[int], batch: Any) -> int | None:
        if self._batch_size in sizes:
            return self._batch_size
        first = _first_size(batch)
        if not sizes or first in sizes:
            return first
        return min(sizes)

    def _capped(self, count: int | None) -> int | None:
        return count if count is None or self._batch_size is None else min(count, self._batch_size)


def _is_list(part: Any) -> bool:
    return isinstance(part, list | tuple) and not isinstance(part, PackedSequence)


def _is_array(part: Any) -> bool:
    shape = getattr(part, "shape", None)
    return shape is not None and not callable(shape)


def _sizes(part: Any) -> set[int] | None:
    """Give how many samples a part may have, the empty set where what is in it disagrees; None says nothing."""
    if isinstance(part, PackedSequence):
        return {int(part.batch_sizes[0])}
    if _is_array(part):
        return {int(part.shape[0])} if len(part.shape) else None
    if isinstance(part, Mapping):
        return _shared_sizes(list(part.values()))
    if not _is_list(part):
        return None
    within = _shared_sizes(part)
    return {*(within or ()), len(part)} if not within or _alike(part) else within


def _shared_sizes(parts: Sequence[Any]) -> set[int] | None:
    """Give the numbers of samples that all parts may have, as far as they tell."""
    told = [sizes for part in parts[:_LOOKED_AT] if (sizes := _sizes(part)) is not None]
    return set.intersection(*told) if told else None


def _alike(parts: Sequence[Any]) -> bool:
    """Tell whether parts are of one form, as samples are."""
    return len({_form(part) for part in parts[:_LOOKED_AT]}) < 2


def _form(part: Any) -> Any:
    if _is_array(part):
        return "array", len(part.shape), getattr(part, "dtype", None)
    if isinstance(part, Mapping):
        return "mapping", frozenset(part)
    return ("list", frozenset(map(_form, part[:_LOOKED_AT]))) if _is_list(part) else type(part)


def _first_size(part: Any) -> int | None:
    """Give the first dimension of the first array, or the length of the first list of what is of one form."""
    if _is_array(part) or isinstance(part, PackedSequence):
        return max(_sizes(part) or (), default=None)
    inner: Iterable[Any] = part.values() if isinstance(part, Mapping) else part if _is_list(part) else ()
    return next((size for each in inner if (size := _first_column(each)) is not None), None)


def _first_column(part: Any) -> int | None:
    return len(part) if _is_list(part) and _alike(part) else _first_size(part)


def move_batch(batch: Any, device: torch.device, *, non_blocking: bool = True) -> Any:
    """Copy every tensor of a batch to a device, keeping the nesting; what is no tensor stays as it is.

    Args:
        batch: What the loader gave.
        device: Where its tensors go.
        non_blocking: Whether the host goes on while tensors in pinned memory are copied.
    """
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=non_blocking)
    if isinstance(batch, PackedSequence):
        packed: Any = batch  # its type says nothing of devices
        return packed.to(device, non_blocking=non_blocking)
    if isinstance(batch, Mapping):
        return {key: move_batch(part, device, non_blocking=non_blocking) for key, part in batch.items()}
    if isinstance(batch, list | tuple):
        parts = [move_batch(part, device, non_blocking=non_blocking) for part in batch]
        if hasattr(batch, "_fields"):
            return type(batch)(*parts)
        return parts if isinstance(batch, list) else tuple(parts)
    return batch


def synchroniser(device: torch.device) -> Any:
    """Give the function that waits until a device has done all of its work; on CPU it does nothing."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return _nothing


def resolve_device(name: str) -> torch.device:
    """Turn `auto` into the first accelerator, or the CPU where there is none."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.device_count():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _nothing() -> None:
    """Do nothing."""
