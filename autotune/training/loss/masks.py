"""Logits and masks brought into one form: what counts, within its range, with one channel for each map."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from autotune.errors import DatasetError, SpecError


class Maps(NamedTuple):
    """A batch of maps as losses take it.

    Attributes:
        logits: `(N, C, H, W)`, float32, or float64 where they came so.
        targets: Of the same shape and type, 0 where nothing counts.
        valid: Of the same shape, whether a pixel counts; None where all do.
    """

    logits: Tensor
    targets: Tensor
    valid: Tensor | None

    def sums(self, values: Tensor) -> Tensor:
        """Add values `(N, C, H, W)` over the pixels of each map that count: `(N, C)`."""
        return (values if self.valid is None else values * self.valid).sum(dim=(-2, -1))

    def means(self, values: Tensor) -> Tensor:
        """Average values `(N, C, H, W)` over the pixels of each map that count: `(N, C)`, 0 where none does."""
        if self.valid is None:
            return values.mean(dim=(-2, -1))
        return self.sums(values) / self.valid.sum(dim=(-2, -1)).clamp_min(1)

    def counted(self) -> Tensor | None:
        """Tell which maps `(N, C)` have a pixel that counts; None where all have."""
        return None if self.valid is None else self.valid.flatten(2).any(dim=2)


def binary_maps(logits: Tensor, targets: Tensor, ignore_index: int | None = None) -> Maps:
    """Give logits and masks of gaps in one form.

    Args:
        logits: `(N, C, H, W)` floats.
        targets: `(N, C, H, W)`, or `(N, H, W)` with one channel, of any type, 0 to 1.
        ignore_index: Value of masks that does not count.

    Raises:
        SpecError: The shapes do not fit.
        DatasetError: A mask has a value outside 0 to 1.
    """
    logits = full_precision(logits)
    aligned = with_channel(targets, logits)
    valid = None if ignore_index is None else aligned != ignore_index
    marked = aligned if valid is None else aligned.masked_fill(~valid, 0)
    check_range(marked, highest=1)
    return Maps(logits, marked.to(logits.dtype), valid)


def with_channel(targets: Tensor, logits: Tensor) -> Tensor:
    """Give masks the shape of logits, which have a channel that masks may leave out.

    Raises:
        SpecError: The shapes do not fit.
    """
    missing = logits.ndim == 4 and logits.shape[1] == 1 and targets.ndim == 3
    aligned = targets.unsqueeze(1) if missing else targets
    if logits.ndim != 4 or aligned.shape != logits.shape:
        raise SpecError(
            "masks have the shape (N, C, H, W) of the logits, or (N, H, W) with one channel, got masks "
            f"{tuple(targets.shape)} for logits {tuple(logits.shape)}"
        )
    return aligned


def full_precision(logits: Tensor) -> Tensor:
    """Give logits in at least float32: sums over a map lose small parts in half precision."""
    return logits if logits.dtype == torch.float64 else logits.float()


def check_range(targets: Tensor, *, highest: int) -> None:
    """Refuse masks with values outside 0 to the highest, NaN among them.

    Raises:
        DatasetError: A value lies outside.
    """
    if targets.numel() == 0 or targets.dtype == torch.bool:
        return
    low, high = (bound.item() for bound in torch.aminmax(targets))
    if low >= 0 and high <= highest:
        return
    value = high if low >= 0 else low  # NaN is both
    raise DatasetError(
        f"values of masks are 0 to {highest}, got {value:g}; where it marks pixels without a measurement, set "
        "ignore_index to it, else map masks to classes in the dataset"
    )


__all__ = ["Maps", "binary_maps", "check_range", "full_precision", "with_channel"]
