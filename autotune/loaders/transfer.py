"""Batches on their way to the device: copied while the batch before is worked on, where the device allows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch

from autotune.measure.batches import move_batch
from autotune.resolve.resolution import warn_caller

Started = TypeVar("Started")
Done = TypeVar("Done")


class Transfer:
    """Moves batches to a device.

    On CUDA with `non_blocking`, copies run on a stream of their own, from the second batch on one batch ahead of the
    consumer, whose stream waits for the copy and not for the host; from pinned memory they overlap with its work.
    Elsewhere a batch is moved when it is asked for.

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
        return (move_batch(batch, self.device, non_blocking=self.non_blocking) for batch in batches)

    def _one_ahead(self, batches: Iterable[Any]) -> Iterator[Any]:
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

        def start(batch: Any) -> tuple[Any, Any, Any]:
            with torch.cuda.stream(stream):
                moved = move_batch(batch, self.device)
            return moved, stream.record_event(), batch  # the host's batch stays until it is copied

        return one_ahead(batches, start, self._arrived)

    def _arrived(self, coming: tuple[Any, Any, Any]) -> Any:
        moved, copied, _ = coming
        consumer = torch.cuda.current_stream(self.device)
        consumer.wait_event(copied)
        for tensor in _tensors(moved):
            if tensor.is_cuda:
                tensor.record_stream(consumer)  # its memory is not taken for another copy while the consumer works
        return moved


def one_ahead(
    items: Iterable[Any], start: Callable[[Any], Started], finish: Callable[[Started], Done]
) -> Iterator[Done]:
    """Start each item while the one before it is in use; the first one is given as soon as it is there.

    An error of the items comes after all that was there before it, as it would without starting any ahead.

    Args:
        items: What is started in its order.
        start: Begins work on an item.
        finish: Waits for what was begun, and gives it.
    """
    source, failure = iter(items), None
    first, ahead = True, None
    while True:
        try:
            item = next(source)
        except StopIteration:
            break
        except Exception as error:  # noqa: BLE001  # raised below, after what was loaded before it
            failure = error
            break
        started = start(item)
        if first:
            first = False
            yield finish(started)
            continue
        if ahead is not None:
            yield finish(ahead)
        ahead = started
    if ahead is not None:
        yield finish(ahead)
    if failure is not None:
        raise failure


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


__all__ = ["Transfer", "device_or_cpu", "is_there", "one_ahead"]
