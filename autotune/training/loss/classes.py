"""Cross-entropy of masks of several classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from autotune.errors import DatasetError, SpecError
from autotune.training.loss.binary import averaged
from autotune.training.loss.masks import Maps, check_range, full_precision
from autotune.training.loss.threshold_weights import ThresholdWeights


class CrossEntropyLoss(nn.Module):
    """Cross-entropy of each sample, averaged over a batch as `MaskLoss` averages maps.

    Args:
        ignore_index: Value of masks that does not count; None counts all.
        threshold_weights: Weight of each threshold in metres; None weighs all alike.
    """

    def __init__(
        self, *, ignore_index: int | None = None, threshold_weights: Mapping[float, float] | None = None
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.threshold_weights = ThresholdWeights(threshold_weights) if threshold_weights is not None else None

    def forward(self, logits: Tensor, targets: Tensor, thresholds: Tensor | None = None) -> Tensor:
        """Give the loss of a batch, without dimensions, in at least float32.

        Args:
            logits: `(N, K, H, W)` floats, one channel for each of two or more classes.
            targets: `(N, H, W)` or `(N, 1, H, W)`, classes 0 to K - 1, of any type.
            thresholds: Metres of samples, `(N,)`; needed with weights.

        Raises:
            SpecError: Shapes do not fit, or a threshold has no weight.
            DatasetError: A mask holds something that is no class.
        """
        classes, valid = class_targets(targets, logits, self.ignore_index)
        entropy = functional.cross_entropy(full_precision(logits), classes, reduction="none").unsqueeze(1)
        maps = Maps(entropy, classes.unsqueeze(1), valid)
        return averaged(maps.means(entropy), maps.counted(), self.threshold_weights, thresholds)


def class_targets(targets: Tensor, logits: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor | None]:
    """Give the classes `(N, H, W)` int64, 0 where nothing counts, and which pixels count `(N, 1, H, W)`.

    Raises:
        SpecError: The shapes do not fit.
        DatasetError: A mask holds something that is no class.
    """
    flat = targets.squeeze(1) if targets.ndim == 4 and targets.shape[1] == 1 else targets
    if logits.ndim != 4 or logits.shape[1] < 2 or flat.shape != (len(logits), *logits.shape[2:]):
        raise SpecError(
            "cross_entropy takes logits (N, K, H, W) of two or more classes and masks (N, H, W), got logits "
            f"{tuple(logits.shape)} and masks {tuple(targets.shape)}; one channel takes loss='bce' or 'combined'"
        )
    valid = None if ignore_index is None else flat != ignore_index
    marked = flat if valid is None else flat.masked_fill(~valid, 0)
    check_range(marked, highest=logits.shape[1] - 1)
    classes = marked.long()
    if marked.is_floating_point() and not torch.equal(classes.to(marked.dtype), marked):
        value = marked[classes != marked][0].item()
        raise DatasetError(f"classes of masks are whole numbers, got {value:g}; resample masks by the nearest pixel")
    return classes, None if valid is None else valid.unsqueeze(1)


__all__ = ["CrossEntropyLoss", "class_targets"]
