"""Collections of torchmetrics, which count once for all their figures and add up over processes."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from autotune.data.extras import needed


def binary_collection(device: str) -> Any:
    """Make the figures of gaps against the rest, with the counts behind them."""
    kinds = needed("torchmetrics", "metrics of segmentation").classification
    return _collection(
        {
            "iou": kinds.BinaryJaccardIndex(validate_args=False),
            "precision": kinds.BinaryPrecision(validate_args=False),
            "recall": kinds.BinaryRecall(validate_args=False),
            "f1": kinds.BinaryF1Score(validate_args=False),
            "accuracy": kinds.BinaryAccuracy(validate_args=False),
            "confusion": kinds.BinaryConfusionMatrix(validate_args=False),
        },
        device,
    )


def class_collection(classes: int, device: str) -> Any:
    """Make the figures of several classes, averaged over those that occur, with the counts behind them."""
    kinds = needed("torchmetrics", "metrics of segmentation").classification
    each: dict[str, Any] = {"num_classes": classes, "validate_args": False}
    return _collection(
        {
            "iou": kinds.MulticlassJaccardIndex(average="macro", **each),
            "iou_of_class": kinds.MulticlassJaccardIndex(average="none", **each),
            "precision": kinds.MulticlassPrecision(average="macro", **each),
            "recall": kinds.MulticlassRecall(average="macro", **each),
            "f1": kinds.MulticlassF1Score(average="macro", **each),
            "accuracy": kinds.MulticlassAccuracy(average="micro", **each),
            "confusion": kinds.MulticlassConfusionMatrix(**each),
        },
        device,
    )


def computed(collection: Any) -> dict[str, Tensor]:
    """Compute every figure, over all processes of an initialised process group; each process must take part."""
    with warnings.catch_warnings():
        # before any update the counts are 0, which callers tell; another process may have some
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric", category=UserWarning)
        figures: dict[str, Tensor] = collection.compute()
    return figures


def _collection(metrics: dict[str, Any], device: str) -> Any:
    return needed("torchmetrics", "metrics of segmentation").MetricCollection(metrics).to(device)


__all__ = ["binary_collection", "class_collection", "computed"]
