"""From a batch to logits beside their targets, for models with and without a height threshold."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader

from autotune.data.device_stage import device_transform_of
from autotune.errors import DatasetError, SpecError
from autotune.resolve.online_loading import OnlineLoader
from autotune.training.batches import Batch, batch_of, on_device
from autotune.training.config import Config
from autotune.training.heights import places_among

_SHOWN = 3
"""Values that a message lists."""


class Outputs(NamedTuple):
    """What a model makes of a batch, with what it should be.

    Attributes:
        inputs: Images that the model saw, `(M, C, H, W)`; or `(N, C, H, W)`, where it gave a channel for each mask.
        logits: `(M, 1, H, W)` float32, or `(N, K, H, W)` of K classes; M is N, or N times T where each mask of a sample
            is a target of its own.
        targets: `(M, 1, H, W)`, or `(N, 1, H, W)` class numbers, of the type that the loader gave.
        thresholds: `(M,)` in metres; None where there are none.
    """

    inputs: torch.Tensor
    logits: torch.Tensor
    targets: torch.Tensor
    thresholds: torch.Tensor | None

    @property
    def images(self) -> torch.Tensor:
        """The image of each target, `(M, C, H, W)`; copied only here, as training has no use for it."""
        each = len(self.targets) // len(self.inputs)
        return self.inputs if each == 1 else self.inputs.repeat_interleave(each, dim=0)

    def counted(self, ignore_index: int | None) -> int:
        """Count the targets that losses are averaged over: those with a pixel that is not to be ignored.

        Args:
            ignore_index: Value of masks that does not count; None counts all.
        """
        if ignore_index is None:
            return len(self.targets)
        return int((self.targets != ignore_index).flatten(1).any(dim=1).sum())


class Forward:
    """Runs a model on batches as loaders give them.

    A sample with T masks, one for each threshold of the configuration, makes T targets: a model that is conditioned
    on the threshold sees the image once with each, any other gives T channels.

    Args:
        config: Configuration of the training.
        device: Where the model is.
        autocast: Type of half precision; None computes in float32.
    """

    def __init__(self, config: Config, device: torch.device, autocast: torch.dtype | None = None) -> None:
        self._config = config
        self._device = device
        self._autocast = autocast
        self._first: tuple[int, ...] | None = None

    def batch(self, given: Any, loader: Any = None) -> Batch:
        """Move a batch to the device, through the transform that a dataset has for it there.

        Args:
            given: The batch, as the loader gave it.
            loader: The loader; those that move batches themselves run such a transform, too.

        Raises:
            DatasetError: It is no batch of images and masks.
        """
        moved = on_device(given, self._device)
        plain = isinstance(loader, DataLoader | OnlineLoader)
        transform = device_transform_of(loader.dataset) if plain else None
        return batch_of(moved if transform is None else transform(moved))

    def __call__(self, network: nn.Module, batch: Batch) -> Outputs:
        """Run the model on a batch.

        Args:
            network: The model, or what wraps it for several ranks.
            batch: The batch.

        Raises:
            DatasetError: The batch has another shape than the model takes.
            SpecError: Thresholds of masks, model and configuration do not fit each other.
        """
        if self._config.loss == "cross_entropy":
            logits = self.logits(network, batch.images, batch.thresholds)
            return Outputs(batch.images, logits, batch.masks, batch.thresholds)
        samples, masks = batch.masks.shape[:2]
        images, thresholds = batch.images, self._thresholds(batch)
        conditioned = takes_thresholds(network)
        if masks > 1 and conditioned:
            images = images.repeat_interleave(masks, dim=0)
        logits = self.logits(network, images, thresholds)
        _check_output(logits, images, channels=1 if conditioned else masks)
        one_each = (samples * masks, 1, *logits.shape[2:])
        return Outputs(images, logits.reshape(one_each), batch.masks.reshape(one_each), thresholds)

    def logits(self, network: nn.Module, images: torch.Tensor, thresholds: torch.Tensor | None) -> torch.Tensor:
        """Run the model, and give its logits `(N, K, H, W)` in float32.

        Raises:
            DatasetError: Images have another shape than the first ones, and the model refuses it.
            SpecError: The model is conditioned on thresholds, and there are none.
        """
        inputs: tuple[torch.Tensor, ...] = (images,)
        if takes_thresholds(network):
            if thresholds is None:
                raise SpecError(
                    "this model takes the threshold of each image, and neither the batch nor the configuration has one "
                    "for it; let the loader give it third, or set thresholds=(10,) of the configuration"
                )
            inputs = (images, thresholds)
        shape = tuple(images.shape[1:])
        self._first = self._first or shape
        try:
            with torch.autocast(self._device.type, dtype=self._autocast, enabled=self._autocast is not None):
                logits: torch.Tensor = network(*inputs)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            if shape == self._first:
                raise
            raise DatasetError(
                f"its images have the shape {shape} and the first ones had {self._first}, and this model cannot take "
                f"it ({str(error).partition(chr(10))[0]}); give the dataset one size (window=, size=), or a collate_fn "
                "that fills up"
            ) from error
        return logits.float()

    def _thresholds(self, batch: Batch) -> torch.Tensor | None:
        """Give the threshold of each mask, `(N * T,)`; None where nobody tells them."""
        samples, masks = batch.masks.shape[:2]
        known = self._config.thresholds
        if masks == 1 and batch.thresholds is not None:
            return _checked(batch.thresholds, known)
        if masks > 1 and len(known) != masks:
            raise SpecError(
                f"each mask of a sample has a threshold, got {masks} masks and thresholds={known} in the "
                "configuration; give dataset and configuration the same"
            )
        if len(known) != masks:
            return None
        return torch.tensor(known, dtype=torch.float32, device=self._device).repeat(samples)


def takes_thresholds(network: nn.Module) -> bool:
    """Tell whether a model is conditioned on thresholds: its `forward` has an argument of that name.

    What wraps a model for several ranks, or compiles it, is looked through.
    """
    inner: Any = network
    while True:
        if isinstance(inner, nn.parallel.DistributedDataParallel):
            inner = inner.module
        elif isinstance(getattr(inner, "_orig_mod", None), nn.Module):  # what torch.compile gives
            inner = inner._orig_mod  # noqa: SLF001
        else:
            return "thresholds" in inspect.signature(inner.forward).parameters


def _checked(metres: torch.Tensor, known: tuple[float, ...]) -> torch.Tensor:
    """Refuse heights that metrics and weights would not know, and numbers that mean something else."""
    found = places_among(metres, known).any(dim=-1)
    if not bool(found.all()):
        others = sorted(set(metres[~found].tolist()))[:_SHOWN]
        raise SpecError(
            f"numbers third in a batch are its thresholds in metres, each one of thresholds={known} of the "
            f"configuration, got {', '.join(f'{value:g}' for value in others)}; add those to the configuration, or let "
            "a collate_fn give numbers of samples in a dictionary"
        )
    return metres


def _check_output(logits: torch.Tensor, images: torch.Tensor, *, channels: int) -> None:
    """Refuse logits that are not of the masks' number and size."""
    wanted = (len(images), channels, *images.shape[2:])
    if tuple(logits.shape) != wanted:
        raise SpecError(
            f"a model gives logits {wanted} for images {tuple(images.shape)}, one channel for each mask, got "
            f"{tuple(logits.shape)}; choose its output channels by the masks, or the loss by the model"
        )


__all__ = ["Forward", "Outputs", "takes_thresholds"]
