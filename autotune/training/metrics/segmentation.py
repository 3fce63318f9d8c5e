"""Figures of predicted gaps, and of several classes, added up over batches and processes."""

from __future__ import annotations

import math

from torch import Tensor

from autotune.errors import SpecError
from autotune.training.loss.classes import class_targets
from autotune.training.metrics.collections import binary_collection, class_collection, computed
from autotune.training.metrics.pixels import decisions

FIGURES = ("iou", "precision", "recall", "f1", "accuracy")
"""What `compute` gives."""


class SegmentationMetrics:
    """Intersection over union, precision, recall, F1 of gaps, and accuracy of all pixels, by torchmetrics.

    All pixels of all batches are counted together, so that an empty image neither helps nor harms. Where a figure
    divides by nothing:

    - gaps were neither there nor predicted: `empty_value` for all but the accuracy, as the agreement is complete;
    - gaps were predicted, or there, but not both: 0;
    - no pixel was counted: NaN for everything.

    Args:
        device: Where to count.
        threshold: Probability above which a pixel is predicted to be a gap.
        ignore_index: Value of masks that does not count; None counts all.
        empty_value: What figures are where gaps were neither there nor predicted; NaN leaves them undefined.

    Raises:
        SpecError: The threshold is not between 0 and 1.
        MissingExtraError: torchmetrics is not installed.
    """

    def __init__(
        self,
        device: str = "cpu",
        threshold: float = 0.5,
        *,
        ignore_index: int | None = None,
        empty_value: float = 1.0,
    ) -> None:
        self.threshold = checked_threshold(threshold)
        self.ignore_index = ignore_index
        self.empty_value = empty_value
        self._collection = binary_collection(str(device))

    def update(self, predictions: Tensor, targets: Tensor, threshold: float | None = None) -> None:
        """Count a batch.

        Args:
            predictions: `(N, C, H, W)`, or `(N, H, W)` with one channel: probabilities, or decisions of 0 and 1.
            targets: The same for masks, of any type, 0 to 1; soft masks are gaps from a half on.
            threshold: Probability above which a pixel is a gap; None is that of the metrics.

        Raises:
            SpecError: Shapes differ, or a prediction is no probability.
            DatasetError: A mask has a value outside 0 to 1.
        """
        limit = self.threshold if threshold is None else checked_threshold(threshold)
        predicted, labels = decisions(predictions, targets, threshold=limit, ignore_index=self.ignore_index)
        if len(labels):
            device = self._collection["confusion"].device
            self._collection.update(predicted.to(device), labels.to(device))

    def compute(self) -> dict[str, float]:
        """Give the figures of everything since the last `reset`, over all processes of a process group."""
        figures = computed(self._collection)
        counts = figures["confusion"]
        if not counts.sum():
            return dict.fromkeys(FIGURES, math.nan)
        found = {name: figures[name].item() for name in FIGURES}
        if counts[0, 0] == counts.sum():
            found.update(dict.fromkeys(("iou", "precision", "recall", "f1"), self.empty_value))
        return found

    def reset(self) -> None:
        """Forget everything that was counted."""
        self._collection.reset()


class ClassMetrics:
    """The figures of `SegmentationMetrics` for several classes: means over the classes that occur, by torchmetrics.

    A class that is neither there nor predicted counts in no mean, and its own `iou_class_<k>` is NaN. One that is
    predicted, or there, but not both, has 0. Before any pixel was counted everything is NaN.

    Args:
        classes: How many, at least 2.
        device: Where to count.
        ignore_index: Value of masks that does not count; None counts all.

    Raises:
        SpecError: There are fewer than two classes.
        MissingExtraError: torchmetrics is not installed.
    """

    def __init__(self, classes: int, device: str = "cpu", *, ignore_index: int | None = None) -> None:
        if classes < 2:
            raise SpecError(f"there are at least two classes, got {classes}; SegmentationMetrics is for gaps alone")
        self.classes = classes
        self.ignore_index = ignore_index
        self._collection = class_collection(classes, str(device))

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Count a batch; of each pixel the class with the highest score is the predicted one.

        Args:
            scores: `(N, K, H, W)` logits or probabilities.
            targets: `(N, H, W)` or `(N, 1, H, W)`, classes 0 to K - 1, of any type.

        Raises:
            SpecError: The shapes do not fit.
            DatasetError: A mask holds something that is no class.
        """
        if scores.ndim == 4 and scores.shape[1] != self.classes:
            raise SpecError(f"scores have one channel for each of {self.classes} classes, got {tuple(scores.shape)}")
        labels, valid = class_targets(targets.detach(), scores, self.ignore_index)
        predicted = scores.detach().argmax(dim=1)
        if valid is not None:
            predicted, labels = predicted[valid[:, 0]], labels[valid[:, 0]]
        if labels.numel():
            device = self._collection["confusion"].device
            self._collection.update(predicted.flatten().to(device), labels.flatten().to(device))

    def compute(self) -> dict[str, float]:
        """Give the figures of everything since the last `reset`, over all processes of a process group."""
        figures = computed(self._collection)
        counts = figures["confusion"]
        if not counts.sum():
            classes = [f"iou_class_{place}" for place in range(self.classes)]
            return dict.fromkeys([*FIGURES, *classes], math.nan)
        occurs = (counts.sum(dim=0) + counts.sum(dim=1)) > 0
        each = figures["iou_of_class"].masked_fill(~occurs, math.nan).tolist()
        return {name: figures[name].item() for name in FIGURES} | {
            f"iou_class_{place}": value for place, value in enumerate(each)
        }

    def reset(self) -> None:
        """Forget everything that was counted."""
        self._collection.reset()


def checked_threshold(threshold: float) -> float:
    """Give the probability that decides.

    Raises:
        SpecError: It is not between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise SpecError(f"a decision threshold is a probability between 0 and 1, got {threshold!r}; metres are others")
    return threshold


__all__ = ["FIGURES", "ClassMetrics", "SegmentationMetrics", "checked_threshold"]
