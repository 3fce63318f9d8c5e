"""Batches on their way to the device: copied while the batch before is worked on, where the device allows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from autotune.resolve.resolution import warn_caller


class Transfer:
    """Moves batches to a device.

    On CUDA with `non_blocking`, copies run on a stream of their own, one batch ahead of the consumer, whose stream
    waits for the copy and not for the host; from pinned memory they overlap with its work. Elsewhere a batch is moved
    when it is asked for.

    Args:
        device: Where batches go.
        non_blocking: Whether the host goes on while a batch is copied.
    """

    def __init__(self, device: torch.device, *, non_blocking: bool) -> None:
        self.device = device
        self.non_blocking = non_blocking

    def over(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Give the batches in their order, on the device."""
        if self.device.type == "cuda" and self.non_blocking:
            return self._one_ahead(batches)
        return (to_device(batch, self.device, non_blocking=self.non_blocking) for batch in batches)

    def _one_ahead(self, batches: Iterable[Any]) -> Iterator[Any]:
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        ahead: tuple[Any, Any, Any] | None = None
        for batch in batches:
            with torch.cuda.stream(stream):
                moved = to_device(batch, self.device, non_blocking=True)
            coming = moved, stream.record_event(), batch  # the host's batch stays until it is copied
            if ahead is not None:
                yield self._arrived(ahead)
            ahead = coming
        if ahead is not None:
            yield self._arrived(ahead)

    def _arrived(self, coming: tuple[Any, Any, Any]) -> Any:
        moved, copied, _ = coming
        consumer = torch.cuda.current_stream(self.device)
        consumer.wait_event(copied)
        for tensor in _tensors(moved):
            if tensor.is_cuda:
                tensor.record_stream(consumer)  # its memory is not taken for another copy while the consumer works
        return moved


def to_device(batch: Any, device: torch.device, *, non_blocking: bool) -> Any:
    """Copy every tensor of a batch to a device, keeping the nesting; what is no tensor stays as it is."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=non_blocking)
    if isinstance(batch, PackedSequence):
        packed: Any = batch  # its type says nothing of devices
        return packed.to(device, non_blocking=non_blocking)
    if isinstance(batch, Mapping):
        return {key: to_device(part, device, non_blocking=non_blocking) for key, part in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [to_device(part, device, non_blocking=non_blocking) for part in batch]
        if hasattr(batch, "_fields"):
            return type(batch)(*parts)
        return parts if isinstance(batch, list) else tuple(parts)
    return batch


def device_or_cpu(name: str) -> torch.device:
    """Give a device by its name, or the CPU with one warning where this machine has none of that name."""
    wanted = torch.device(name)
    if is_there(wanted):
        return wanted
    warn_caller(
        f"pin_memory_device={name!r} is not there, so batches stay on the CPU; write pin_memory_device='cpu' where "
        "that is meant"
    )
    return torch.device("cpu")


def is_there(device: torch.device) -> bool:
    """Tell whether this machine has a device."""
    if device.type == "cpu":
        return True
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        return False
    return True


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from _tensors(part)
    elif isinstance(batch, tuple | list):
        for part in batch:
            yield from _tensors(part)


__all__ = ["Transfer", "device_or_cpu", "is_there", "to_device"]
