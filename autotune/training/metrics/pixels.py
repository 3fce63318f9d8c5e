"""Predictions and masks as metrics take them: flat decisions and labels of the pixels that count."""

from __future__ import annotations

import torch
from torch import Tensor

from autotune.errors import SpecError
from autotune.training.loss.masks import check_range

_SOFT_GAP = 0.5
"""Share of a gap from which a pixel of a soft mask, as resampling makes them, is one."""


def decisions(
    predictions: Tensor, targets: Tensor, *, threshold: float, ignore_index: int | None = None
) -> tuple[Tensor, Tensor]:
    """Give decided pixels and their labels, both `(pixels,)` int64 of 0 and 1, of the pixels that count.

    Args:
        predictions: `(N, C, H, W)`, or `(N, H, W)` with one channel: probabilities, or decisions of 0 and 1.
        targets: The same for masks, of any type, 0 to 1; soft masks are gaps from a half on.
        threshold: Probability above which a pixel is a gap.
        ignore_index: Value of masks that does not count.

    Raises:
        SpecError: Shapes differ, or a prediction is no probability.
        DatasetError: A mask has a value outside 0 to 1.
    """
    predictions, targets = predictions.detach(), with_batch_shape(targets.detach(), predictions)
    if predictions.dtype == torch.bool:
        predictions = predictions.to(torch.uint8)
    if predictions.numel():
        low, high = (bound.item() for bound in torch.aminmax(predictions))
        if not (low >= 0 and high <= 1):
            raise SpecError(
                f"predictions are probabilities, 0 to 1, got {high if low >= 0 else low:g}; pass torch.sigmoid(logits)"
            )
    if ignore_index is not None:
        counted = targets != ignore_index
        predictions, targets = predictions[counted], targets[counted]
    check_range(targets, highest=1)
    return (predictions > threshold).long().flatten(), (targets >= _SOFT_GAP).long().flatten()


def with_batch_shape(targets: Tensor, predictions: Tensor) -> Tensor:
    """Give masks the shape of predictions, where the one has a single channel that the other leaves out.

    Raises:
        SpecError: The shapes do not fit.
    """
    if targets.shape == predictions.shape:
        return targets
    if targets.numel() == predictions.numel() and 1 in {*predictions.shape[1:2], *targets.shape[1:2]}:
        longer, shorter = sorted((tuple(targets.shape), tuple(predictions.shape)), key=len, reverse=True)
        if (longer[0], *longer[2:]) == shorter:
            return targets.reshape(predictions.shape)
    raise SpecError(
        f"predictions have the shape of the masks, got predictions {tuple(predictions.shape)} and masks "
        f"{tuple(targets.shape)}"
    )


__all__ = ["decisions", "with_batch_shape"]
