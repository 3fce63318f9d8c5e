"""The loss that a configuration asks for."""

from __future__ import annotations

from typing import Any

from torch import nn

from autotune.training.config import Config
from autotune.training.loss.binary import BinaryCrossEntropyLoss, DiceLoss, FocalLoss
from autotune.training.loss.classes import CrossEntropyLoss
from autotune.training.loss.combined import CombinedFocalDiceLoss
from autotune.training.loss.threshold_weights import rarity_weights


def create_loss_function(config: Config) -> nn.Module:
    """Make the loss that a configuration describes, called as `loss(logits, targets, thresholds=None)`.

    Args:
        config: Its `loss`, the fields of that loss, `ignore_index` and the threshold weights count.
    """
    common: dict[str, Any] = {"ignore_index": config.ignore_index, "threshold_weights": threshold_weights(config)}
    if config.loss == "bce":
        return BinaryCrossEntropyLoss(**common)
    if config.loss == "focal":
        return FocalLoss(config.focal_alpha, config.focal_gamma, **common)
    if config.loss == "dice":
        return DiceLoss(config.dice_smooth, **common)
    if config.loss == "cross_entropy":
        return CrossEntropyLoss(**common)
    return CombinedFocalDiceLoss(
        config.focal_alpha,
        config.focal_gamma,
        focal_share=config.focal_share,
        smooth=config.dice_smooth,
        **common,
    )


def threshold_weights(config: Config) -> dict[float, float] | None:
    """Give the weight of each threshold in metres; None where a configuration weighs all alike."""
    if not config.use_threshold_weights:
        return None
    if config.threshold_weights is None:
        return rarity_weights(config.thresholds)
    return dict(zip(config.thresholds, config.threshold_weights, strict=True))


__all__ = ["create_loss_function", "threshold_weights"]
