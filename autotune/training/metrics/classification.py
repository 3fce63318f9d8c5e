"""Figures of predicted gaps for each height threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from autotune.errors import SpecError
from autotune.training.heights import SAME_M
from autotune.training.metrics.segmentation import FIGURES, SegmentationMetrics


class ThresholdMetrics:
    """The figures of `SegmentationMetrics` for each height threshold, and their means.

    Args:
        thresholds: Heights in metres.
        device: Where to count.
        ignore_index: Value of masks that does not count; None counts all.
        empty_value: As `SegmentationMetrics` takes it, for each threshold by itself.

    Raises:
        SpecError: There is no threshold, one twice, or one that is not above 0.
        MissingExtraError: torchmetrics is not installed.
    """

    def __init__(
        self,
        thresholds: Sequence[float] = (5.0, 10.0, 15.0, 20.0),
        device: str = "cpu",
        *,
        ignore_index: int | None = None,
        empty_value: float = 1.0,
    ) -> None:
        metres = tuple(float(value) for value in thresholds)
        if not metres or len(set(metres)) < len(metres) or not all(0 < value < math.inf for value in metres):
            raise SpecError(f"thresholds are different heights above 0 m, and at least one, got {list(thresholds)}")
        self.thresholds = metres
        self._metrics = {
            value: SegmentationMetrics(device, ignore_index=ignore_index, empty_value=empty_value) for value in metres
        }

    def update(
        self,
        predictions: Tensor,
        targets: Tensor,
        threshold: float = 0.5,
        *,
        threshold_value: float | Tensor | None = None,
    ) -> None:
        """Count a batch.

        Args:
            predictions: `(N, C, H, W)`, or `(N, H, W)` with one channel: probabilities, or decisions of 0 and 1.
            targets: The same for masks, of any type, 0 to 1.
            threshold: Probability above which a pixel is a gap.
            threshold_value: Metres of all samples, or of each, `(N,)`; None where the channels are the thresholds, in
                their order.

        Raises:
            SpecError: A height is none of the thresholds, shapes differ, or a prediction is no probability.
            DatasetError: A mask has a value outside 0 to 1.
        """
        if threshold_value is None:
            self._update_channels(predictions, targets, threshold)
            return
        metres = torch.as_tensor(threshold_value, dtype=torch.float64).cpu().reshape(-1)
        if len(metres) == 1:
            self._metrics[self._known(metres[0].item())].update(predictions, targets, threshold)
            return
        if len(metres) != len(predictions):
            raise SpecError(f"each sample has one threshold, got {len(metres)} for {len(predictions)} samples")
        known = [self._known(value) for value in metres.tolist()]
        for value in dict.fromkeys(known):
            chosen = torch.tensor([one == value for one in known], device=predictions.device)
            self._metrics[value].update(predictions[chosen], targets[chosen.to(targets.device)], threshold)

    def compute(self) -> dict[str, float]:
        """Give `<figure>_<metres>m` for each threshold, and `mean_<figure>` over those with a pixel that was counted.

        Figures of thresholds without a pixel are NaN. Over all processes of a process group, as each threshold counts.
        """
        each = {value: metrics.compute() for value, metrics in self._metrics.items()}
        found = {f"{name}_{value:g}m": figures[name] for value, figures in each.items() for name in FIGURES}
        for name in FIGURES:
            defined = [figures[name] for figures in each.values() if not math.isnan(figures[name])]
            found[f"mean_{name}"] = sum(defined) / len(defined) if defined else math.nan
        return found

    def reset(self) -> None:
        """Forget everything that was counted."""
        for metrics in self._metrics.values():
            metrics.reset()

    def _update_channels(self, predictions: Tensor, targets: Tensor, threshold: float) -> None:
        if predictions.ndim != 4 or predictions.shape[1] != len(self.thresholds):
            raise SpecError(
                f"without threshold_value there is one channel for each of {list(self.thresholds)} m, got predictions "
                f"{tuple(predictions.shape)}; give the metres of the samples as threshold_value"
            )
        if targets.shape != predictions.shape:
            raise SpecError(
                f"predictions have the shape of the masks, got predictions {tuple(predictions.shape)} and masks "
                f"{tuple(targets.shape)}"
            )
        for channel, value in enumerate(self.thresholds):
            self._metrics[value].update(predictions[:, channel], targets[:, channel], threshold)

    def _known(self, metres: float) -> float:
        for value in self.thresholds:
            if abs(value - metres) <= SAME_M:
                return value
        raise SpecError(
            f"metrics are kept for the thresholds {list(self.thresholds)} m, got {metres:g} m; "
            "name it in ThresholdMetrics(thresholds=...)"
        )


__all__ = ["ThresholdMetrics"]
