"""What a batch is to a measurement: how many samples it has, and how it gets to the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def count_samples(batch: Any, batch_size: int) -> int:
    """Count the samples of a batch of any nesting.

    Args:
        batch: What the loader gave.
        batch_size: Size asked for; decides where a list could be samples or parts, and is the
            answer where the batch has no array.
    """
    leading = _leading(batch)
    if leading == batch_size or not isinstance(batch, list | tuple):
        return batch_size if leading is None else leading
    if len(batch) == batch_size or leading is None:
        return min(len(batch), batch_size)
    return min(leading, batch_size)


def _leading(batch: Any) -> int | None:
    """Find the first dimension of the first array."""
    if isinstance(batch, torch.Tensor | np.ndarray):
        return int(batch.shape[0]) if batch.ndim else None
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((found for part in parts if (found := _leading(part)) is not None), None)


def move_batch(batch: Any, device: torch.device) -> Any:
    """Copy every tensor of a batch to a device, keeping the nesting; asynchronous from pinned memory."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: move_batch(part, device) for key, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move_batch(part, device) for part in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(move_batch(part, device) for part in batch)
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
