"""The training step by itself, for studies: forward, loss, backward and update, as `Trainer` makes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autotune.training.batches import Batch, batch_of
from autotune.training.config import Config
from autotune.training.evaluation import probabilities
from autotune.training.finite import Place, check_norm, loss_not_finite
from autotune.training.forward import Forward
from autotune.training.loss.factory import create_loss_function
from autotune.training.models.unet import ThresholdUNet
from autotune.training.optimization.normalization import apply_normalization
from autotune.training.updates import Updates, half_precision


class TrainingStep:
    """Trains a model on one batch at a time, with the memory and the time that `Trainer` takes for it.

    `autotune.tune(dataset, step=TrainingStep(model, config))` measures loaders on it; a study file names a function
    that returns one. The first batch decides what a trainer would ask its loader: the model goes to the device of that
    batch, and its normalisation follows the number of its samples. A step knows no epochs, so the learning rate stays
    that of the configuration.

    Args:
        model: The model, which is trained.
        config: Configuration of the training; None is `Config()`.
    """

    def __init__(self, model: nn.Module, config: Config | None = None) -> None:
        self._model = model
        self._config = (Config() if config is None else config).model_copy(update={"scheduler_type": None})
        self._parts: _Parts | None = None
        self._batches = 0

    def __call__(self, batch: Any) -> None:
        """Train on a batch.

        Args:
            batch: `(images, masks)` or `(images, masks, thresholds)` on the device, as `Trainer` takes them.

        Raises:
            DatasetError: The batch is no such thing.
            NonFiniteLossError: The loss, or a gradient, is NaN or infinite.
        """
        given = batch_of(batch)
        parts = self._prepared(given)
        place = Place(0, self._batches, parts.updates.learning_rate)
        outputs = parts.forward(self._model, given)
        loss = parts.loss(outputs.logits, outputs.targets, outputs.thresholds)
        value = loss.item()  # as in training, where the device is waited for here
        if not math.isfinite(value):
            raise loss_not_finite(value, place, batch=given, outputs=outputs, model=self._model, config=self._config)
        updates = parts.updates
        updates.add(loss)
        check_norm(updates.apply_whole(), place, scales=updates.scales, skipped=updates.skipped)
        updates.settle()
        self._batches += 1

    def evaluate(self, batch: Any) -> None:
        """Take a batch as validation does: loss and probabilities, without gradients and without an update."""
        given = batch_of(batch)
        parts = self._prepared(given)
        self._model.eval()
        try:
            with torch.no_grad():
                outputs = parts.forward(self._model, given)
                parts.loss(outputs.logits, outputs.targets, outputs.thresholds).item()
                probabilities(outputs.logits)
        finally:
            self._model.train()

    def _prepared(self, batch: Batch) -> _Parts:
        if self._parts is None:
            device = batch.images.device
            model = apply_normalization(self._model.to(device), self._config, len(batch.images)).train()
            self._model = model
            self._parts = _Parts(
                forward=Forward(self._config, device, half_precision(self._config, device)),
                loss=create_loss_function(self._config).to(device),
                updates=Updates(model, self._config, device=device, batches_per_epoch=None),
            )
        return self._parts


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What a step is made of, once device and batch size are known."""

    forward: Forward
    loss: nn.Module
    updates: Updates


def threshold_unet_step(
    *, in_channels: int = 1, width: int = 8, depth: int = 3, seed: int = 0, **settings: Any
) -> TrainingStep:
    """Give the training step of a `ThresholdUNet`, for study files.

    Args:
        in_channels: Bands of the images.
        width: Features of the first level.
        depth: Levels under the first.
        seed: Seed of the weights.
        **settings: Fields of `Config` (`thresholds`, `loss`, `optimizer` ...). Each mask of a sample needs its
            threshold; those about epochs and checkpoints have no part in a step.

    Raises:
        SpecError: A value breaks a rule, or there is no such field.
    """
    config = Config(seed=seed, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ThresholdUNet(in_channels, width=width, depth=depth, threshold_scale_m=max(config.thresholds))
    return TrainingStep(model, config)


__all__ = ["TrainingStep", "threshold_unet_step"]
