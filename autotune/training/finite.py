"""Losses and gradients that are not finite, with what can be seen of the reason."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from autotune.errors import NonFiniteLossError
from autotune.training.batches import Batch
from autotune.training.config import Config
from autotune.training.forward import Outputs

SKIPPED_MAX = 20
"""Updates in a row that scaled losses may skip. Each halves the scale, which begins at 2^16: after 17 it is under 1, so
that what is still NaN or infinite is not for being scaled."""


class Place(NamedTuple):
    """Where a training is.

    Attributes:
        epoch: The epoch, counted from 0.
        batch: The batch in it, counted from 0.
        rate: Learning rate of its update.
    """

    epoch: int
    batch: int
    rate: float

    def __str__(self) -> str:
        return f"batch {self.batch} of epoch {self.epoch}"

    def error(self, message: str) -> NonFiniteLossError:
        """Make the error that is about this place."""
        return NonFiniteLossError(message, epoch=self.epoch, batch=self.batch, learning_rate=self.rate)


def check_norm(norm: float | None, place: Place, *, scales: bool, skipped: int) -> None:
    """Refuse gradients that would have broken the weights.

    Args:
        norm: Norm of all gradients; None where there was no update.
        place: The batch that completed them.
        scales: Whether losses are scaled, so that gradients that overflow now and then are no error.
        skipped: Updates in a row, this one included, whose gradients were not finite.

    Raises:
        NonFiniteLossError: The norm is NaN or infinite; with scaled losses, for the `SKIPPED_MAX`th time in a row.
    """
    if norm is None or math.isfinite(norm) or (scales and skipped < SKIPPED_MAX):
        return
    times = f" for {skipped} updates in a row, at ever lower scales of the loss" if scales else ""
    half = ", or train with mixed_precision=False" if scales else ""
    raise place.error(
        f"{place}: gradients must be finite, got the norm {norm} at learning rate {place.rate:g} from a finite "
        f"loss{times}, and no update was made of them; lower learning_rate{half}, or look for values in the images "
        "that are too large"
    )


def loss_not_finite(
    value: float, place: Place, *, batch: Batch, outputs: Outputs, model: nn.Module, config: Config
) -> NonFiniteLossError:
    """Say why a loss may be NaN or infinite, here or on another rank."""
    if math.isfinite(value):
        reason = "on another rank, whose message says more"
    elif not _finite(batch.images):
        reason = "its images hold NaN or infinity; let the dataset fill pixels without a measurement (fill=0.0)"
    elif not all(_finite(parameter) for parameter in model.parameters()):
        reason = "the weights are not finite since an update before; begin again from a checkpoint with a lower rate"
    else:
        clipping = "" if config.use_gradient_clipping else ", set use_gradient_clipping=True"
        half = ", or mixed_precision=False" if outputs.logits.device.type == "cuda" else ""
        reason = f"images and weights are finite; lower learning_rate{clipping}{half}"
    return place.error(
        f"{place}: the loss must be finite, got {value} at learning rate {place.rate:g}: {reason}. The model is as it "
        "was after the last update"
    )


def _finite(values: torch.Tensor) -> bool:
    return bool(torch.isfinite(values).all())


__all__ = ["SKIPPED_MAX", "Place", "check_norm", "loss_not_finite"]
