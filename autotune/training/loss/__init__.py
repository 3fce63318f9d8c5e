"""Losses of segmentation."""

from autotune.training.loss.binary import BinaryCrossEntropyLoss, DiceLoss, FocalLoss
from autotune.training.loss.classes import CrossEntropyLoss
from autotune.training.loss.combined import CombinedFocalDiceLoss
from autotune.training.loss.factory import create_loss_function

__all__ = [
    "BinaryCrossEntropyLoss",
    "CombinedFocalDiceLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "create_loss_function",
]
