"""Metrics of segmentation, in all and by height threshold."""

from autotune.training.metrics.classification import ThresholdMetrics
from autotune.training.metrics.segmentation import ClassMetrics, SegmentationMetrics

__all__ = ["ClassMetrics", "SegmentationMetrics", "ThresholdMetrics"]
