"""Passes that only look: the loss and the metrics of a model over a loader."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from autotune.training.config import Config
from autotune.training.forward import Forward, Outputs
from autotune.training.loading import Loader, no_batches
from autotune.training.located import located
from autotune.training.metrics.classification import ThresholdMetrics
from autotune.training.metrics.segmentation import ClassMetrics, SegmentationMetrics
from autotune.training.ranks import Ranks

Watch = Callable[[int, Outputs, torch.Tensor], None]
"""Takes the number of a batch, what the model made of it, and its probabilities."""


class Evaluation:
    """Evaluates a model over loaders, without gradients and without touching what trains.

    Where ranks divide the samples, losses and metrics are those of all of them; a sample that a distributed sampler
    gives twice, to even out the shares, counts twice.

    Args:
        config: Configuration of the training.
        forward: Runs the model.
        loss: The loss.
        ranks: The processes that train together.
    """

    def __init__(self, config: Config, forward: Forward, loss: nn.Module, ranks: Ranks) -> None:
        self._config = config
        self._forward = forward
        self._loss = loss
        self._ranks = ranks

    def __call__(
        self, model: nn.Module, loader: Loader, *, name: str, watch: Watch | None = None
    ) -> tuple[float, dict[str, float]]:
        """Evaluate; give the loss, averaged over all targets that count, and the metrics.

        The loss is NaN where `ignore_index` leaves no pixel to count.

        Args:
            model: The model, whose mode is put back afterwards.
            loader: What gives the batches.
            name: What they are for, as messages say it.
            watch: Told of every batch.

        Raises:
            DatasetError: There is no batch, or a batch does not fit.
        """
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                return self._evaluated(model, loader, name, watch)
        finally:
            model.train(was_training)

    def _evaluated(
        self, model: nn.Module, loader: Loader, name: str, watch: Watch | None
    ) -> tuple[float, dict[str, float]]:
        figures = Figures(self._config, self._ranks)
        total, counted, batches = 0.0, 0, 0
        for number, given in enumerate(loader):
            with located(f"batch {number} of the {name} loader"):
                outputs = self._forward(model, self._forward.batch(given, loader))
                loss = self._loss(outputs.logits, outputs.targets, outputs.thresholds)
                chances = probabilities(outputs.logits)
                figures.update(chances, outputs)
            weight = outputs.counted(self._config.ignore_index)
            total += float(loss) * weight
            counted += weight
            batches += 1
            if watch is not None:
                watch(number, outputs, chances)
        total, targets, given_batches = self._ranks.summed(total, counted, batches)
        if not given_batches:
            raise no_batches(loader, name)
        return total / targets if targets else math.nan, figures.compute()


class Figures:
    """The metrics of one pass: of all pixels, and of each threshold where masks have one.

    Args:
        config: Configuration of the training.
        ranks: The processes that train together, over which metrics are added up.
    """

    def __init__(self, config: Config, ranks: Ranks) -> None:
        self._config = config
        self._ranks = ranks
        self._device = str(ranks.device)
        self._binary: SegmentationMetrics | None = None
        self._classes: ClassMetrics | None = None
        self._by_threshold: ThresholdMetrics | None = None

    def update(self, chances: torch.Tensor, outputs: Outputs) -> None:
        """Count a batch of probabilities `(M, 1, H, W)`, or `(N, K, H, W)` of classes."""
        config = self._config
        self._make(classes=chances.shape[1], by_threshold=outputs.thresholds is not None)
        if self._classes is not None:
            self._classes.update(chances, outputs.targets)
        if self._binary is not None:
            self._binary.update(chances, outputs.targets)
        if self._by_threshold is not None and outputs.thresholds is not None:
            self._by_threshold.update(
                chances, outputs.targets, config.decision_threshold, threshold_value=outputs.thresholds
            )

    def compute(self) -> dict[str, float]:
        """Give the metrics of everything that was counted; all ranks call it, those without a batch too."""
        known = (0 if self._classes is None else self._classes.classes, self._by_threshold is not None)
        of_ranks = self._ranks.gathered(known)
        self._make(classes=max(classes for classes, _ in of_ranks), by_threshold=any(told for _, told in of_ranks))
        found: dict[str, float] = {}
        for metrics in (self._binary, self._classes, self._by_threshold):
            if metrics is not None:
                found |= metrics.compute()
        return found

    def _make(self, *, classes: int, by_threshold: bool) -> None:
        """Make the metrics that are not there yet, as every rank must have those of the others."""
        config, ignored = self._config, self._config.ignore_index
        if config.loss == "cross_entropy":
            self._classes = self._classes or ClassMetrics(classes, self._device, ignore_index=ignored)
            return
        self._binary = self._binary or SegmentationMetrics(
            self._device, config.decision_threshold, ignore_index=ignored
        )
        if by_threshold and self._by_threshold is None:
            self._by_threshold = ThresholdMetrics(config.thresholds, self._device, ignore_index=ignored)


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Give the probabilities of logits: of a gap with one channel, else of each of the classes."""
    return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)


__all__ = ["Evaluation", "Figures", "Watch", "probabilities"]
