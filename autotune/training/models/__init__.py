"""Reference models."""

from autotune.training.models.unet import ThresholdUNet

__all__ = ["ThresholdUNet"]
