"""Losses of gap masks: cross-entropy, focal and Dice loss of each map, averaged over a batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from autotune.errors import SpecError
from autotune.training.loss.masks import Maps, binary_maps
from autotune.training.loss.threshold_weights import ThresholdWeights


class MaskLoss(nn.Module):
    """A loss of logits against masks of 0 to 1: the mean of `map_losses`, weighted by threshold where asked for.

    Every map, one channel of one sample, counts alike, however many of its pixels do; maps without a pixel that counts
    are left out. Weights multiply, so that their mean should be 1.

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
            logits: `(N, C, H, W)` floats, before the sigmoid.
            targets: `(N, C, H, W)`, or `(N, H, W)` with one channel, of any type, 0 to 1.
            thresholds: Metres, `(N,)` or `(N, C)`; needed with weights, unless channels are the thresholds.

        Raises:
            SpecError: Shapes do not fit, or a threshold has no weight.
            DatasetError: A mask has a value outside 0 to 1.
        """
        maps = binary_maps(logits, targets, self.ignore_index)
        return averaged(self.map_losses(maps), maps.counted(), self.threshold_weights, thresholds)

    def map_losses(self, maps: Maps) -> Tensor:
        """Give the loss of each map, `(N, C)`."""
        raise NotImplementedError


class BinaryCrossEntropyLoss(MaskLoss):
    """The mean of `-t log(p) - (1 - t) log(1 - p)` over the pixels of each map."""

    def map_losses(self, maps: Maps) -> Tensor:
        """Give the loss of each map, `(N, C)`."""
        return maps.means(functional.binary_cross_entropy_with_logits(maps.logits, maps.targets, reduction="none"))


class FocalLoss(MaskLoss):
    """Focal loss (Lin et al. 2017, arXiv:1708.02002, equation 5): easy pixels count less.

    Args:
        alpha: Weight of gaps; the rest has `1 - alpha`.
        gamma: Exponent; 0 is weighted cross-entropy.
        ignore_index: As `MaskLoss` takes it.
        threshold_weights: As `MaskLoss` takes it.

    Raises:
        SpecError: `alpha` is not in 0 to 1, or `gamma` is negative.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        gamma: float = 2.0,
        *,
        ignore_index: int | None = None,
        threshold_weights: Mapping[float, float] | None = None,
    ) -> None:
        super().__init__(ignore_index=ignore_index, threshold_weights=threshold_weights)
        self.alpha = checked_share("alpha", alpha)
        self.gamma = gamma
        if not gamma >= 0:
            raise SpecError(f"gamma is at least 0, got {gamma!r}; 0 is cross-entropy")

    def map_losses(self, maps: Maps) -> Tensor:
        """Give the loss of each map, `(N, C)`."""
        return focal_losses(maps, self.alpha, self.gamma)


class DiceLoss(MaskLoss):
    """One minus the soft Dice coefficient of each map (Milletari et al. 2016, arXiv:1606.04797).

    Args:
        smooth: What is added above and below the fraction, above 0: an empty map that is predicted empty has no loss.
        ignore_index: As `MaskLoss` takes it.
        threshold_weights: As `MaskLoss` takes it.

    Raises:
        SpecError: `smooth` is not above 0.
    """

    def __init__(
        self,
        smooth: float = 1.0,
        *,
        ignore_index: int | None = None,
        threshold_weights: Mapping[float, float] | None = None,
    ) -> None:
        super().__init__(ignore_index=ignore_index, threshold_weights=threshold_weights)
        self.smooth = checked_smooth(smooth)

    def map_losses(self, maps: Maps) -> Tensor:
        """Give the loss of each map, `(N, C)`."""
        return dice_losses(maps, self.smooth)


def focal_losses(maps: Maps, alpha: float, gamma: float) -> Tensor:
    """Give the mean of `-alpha_t (1 - p_t)^gamma log(p_t)` over the pixels of each map, `(N, C)`."""
    logits, targets = maps.logits, maps.targets
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # 1 - p_t without a difference of nearly equal numbers; kept above 0, where a power under 1 has no derivative
    wrong = torch.sigmoid(logits) * (1 - targets) + torch.sigmoid(-logits) * targets
    hard = wrong.clamp_min(torch.finfo(wrong.dtype).tiny).pow(gamma)
    return maps.means((alpha * targets + (1 - alpha) * (1 - targets)) * hard * entropy)


def dice_losses(maps: Maps, smooth: float) -> Tensor:
    """Give `1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)` of each map, `(N, C)`."""
    chances = torch.sigmoid(maps.logits)
    common = maps.sums(chances * maps.targets)
    return 1 - (2 * common + smooth) / (maps.sums(chances) + maps.sums(maps.targets) + smooth)


def averaged(
    losses: Tensor, counted: Tensor | None, weights: ThresholdWeights | None, thresholds: Tensor | None
) -> Tensor:
    """Average the losses of maps `(N, C)` over those that count, each multiplied by the weight of its threshold."""
    if weights is not None:
        losses = losses * weights(losses, thresholds)
    if counted is None:
        return losses.mean()
    return (losses * counted).sum() / counted.sum().clamp_min(1)


def checked_share(name: str, value: float) -> float:
    """Give a number of 0 to 1.

    Raises:
        SpecError: It lies outside.
    """
    if not 0 <= value <= 1:
        raise SpecError(f"{name} is 0 to 1, got {value!r}")
    return value


def checked_smooth(smooth: float) -> float:
    """Give what smooths the Dice loss.

    Raises:
        SpecError: It is not above 0, where empty maps would divide by nothing.
    """
    if not smooth > 0:
        raise SpecError(f"smooth is above 0, got {smooth!r}; 1e-6 hardly smooths")
    return smooth


__all__ = [
    "BinaryCrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "MaskLoss",
    "averaged",
    "checked_share",
    "checked_smooth",
    "dice_losses",
    "focal_losses",
]
