"""Focal and Dice loss in one: the one sees each pixel, the other the whole of a gap."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from autotune.errors import SpecError
from autotune.training.loss.binary import MaskLoss, checked_share, checked_smooth, dice_losses, focal_losses
from autotune.training.loss.masks import Maps


class CombinedFocalDiceLoss(MaskLoss):
    """`focal_share` of the focal loss and the rest of the Dice loss, of each map.

    Args:
        alpha: Weight of gaps in the focal loss; the rest has `1 - alpha`.
        gamma: Exponent of the focal loss.
        focal_share: Part of the focal loss, 0 to 1.
        smooth: What is added above and below the fraction of the Dice loss.
        ignore_index: Value of masks that does not count; None counts all.
        threshold_weights: Weight of each threshold in metres; None weighs all alike.

    Raises:
        SpecError: A value breaks its rule.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        gamma: float = 2.0,
        *,
        focal_share: float = 0.5,
        smooth: float = 1.0,
        ignore_index: int | None = None,
        threshold_weights: Mapping[float, float] | None = None,
    ) -> None:
        super().__init__(ignore_index=ignore_index, threshold_weights=threshold_weights)
        if not gamma >= 0:
            raise SpecError(f"gamma is at least 0, got {gamma!r}; 0 is cross-entropy")
        self.alpha = checked_share("alpha", alpha)
        self.gamma = gamma
        self.focal_share = checked_share("focal_share", focal_share)
        self.smooth = checked_smooth(smooth)

    def map_losses(self, maps: Maps) -> Tensor:
        """Give the loss of each map, `(N, C)`."""
        focal = focal_losses(maps, self.alpha, self.gamma)
        return self.focal_share * focal + (1 - self.focal_share) * dice_losses(maps, self.smooth)


__all__ = ["CombinedFocalDiceLoss"]
