"""Probabilities of gaps for images that no loader gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from autotune.errors import SpecError
from autotune.training.config import Config
from autotune.training.forward import Forward, takes_thresholds
from autotune.training.heights import places_among

Thresholds = float | Sequence[float] | torch.Tensor | None


def predicted(
    model: nn.Module,
    inputs: torch.Tensor,
    thresholds: Thresholds,
    *,
    forward: Forward,
    config: Config,
    device: torch.device,
    batch_size: int,
) -> torch.Tensor:
    """Predict images batch by batch, without gradients, and leave the model in the mode that it was in.

    Args:
        model: The model.
        inputs: Images `(N, C, H, W)`, or one `(C, H, W)`, normalised as in training.
        thresholds: Metres: one for all images, or one for each; None for models that know none.
        forward: Runs the model.
        config: Configuration of the training.
        device: Where the model is.
        batch_size: Images that are predicted at once.

    Returns:
        Probabilities on the CPU, float32: `(N, 1, H, W)` of gaps under the thresholds, or all channels of the model.

    Raises:
        SpecError: Inputs or thresholds have another form.
    """
    images = inputs[None] if inputs.dim() == 3 else inputs
    if images.dim() != 4 or not len(images):
        raise SpecError(f"inputs are images (N, C, H, W) or (C, H, W), got {tuple(inputs.shape)}")
    metres = _per_image(thresholds, len(images))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            parts = [
                forward.logits(
                    model,
                    images[start : start + batch_size].to(device, torch.float32),
                    None if metres is None else metres[start : start + batch_size].to(device),
                ).cpu()
                for start in range(0, len(images), batch_size)
            ]
    finally:
        model.train(was_training)
    logits = torch.cat(parts)
    if config.loss == "cross_entropy":
        return torch.softmax(logits, dim=1)
    chances = torch.sigmoid(logits)
    return chances if metres is None or takes_thresholds(model) else _of_channels(chances, metres, config)


def _per_image(thresholds: Thresholds, count: int) -> torch.Tensor | None:
    """Give one threshold for each image, `(N,)` float32 on the CPU."""
    if thresholds is None:
        return None
    metres = torch.as_tensor(thresholds, dtype=torch.float32).cpu().reshape(-1)
    if len(metres) == 1:
        return metres.repeat(count)
    if len(metres) != count:
        raise SpecError(f"thresholds are one for all images or one for each, got {len(metres)} for {count} images")
    return metres


def _of_channels(chances: torch.Tensor, metres: torch.Tensor, config: Config) -> torch.Tensor:
    """Choose the channel of each image's threshold, of a model that has one for each: `(N, 1, H, W)`."""
    found = places_among(metres, config.thresholds)
    if chances.shape[1] != len(config.thresholds) or not bool(found.any(dim=1).all()):
        raise SpecError(
            f"this model is not conditioned on thresholds: it has {chances.shape[1]} channels for "
            f"thresholds={config.thresholds} of the configuration, got {sorted(set(metres.tolist()))}; choose among "
            "those, or leave thresholds out"
        )
    places = found.int().argmax(dim=1)
    return chances[torch.arange(len(chances)), places][:, None]


__all__ = ["Thresholds", "predicted"]
