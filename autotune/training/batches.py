"""What a loader gives, as a training takes it: images, masks and thresholds on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from autotune.errors import DatasetError


class Batch(NamedTuple):
    """One batch on the device.

    Attributes:
        images: `(N, C, H, W)` float32.
        masks: `(N, T, H, W)`, of any type; T is 1 where masks came as `(N, H, W)`.
        thresholds: `(N,)` float32 in metres; None where the loader gives none.
    """

    images: torch.Tensor
    masks: torch.Tensor
    thresholds: torch.Tensor | None


def on_device(value: Any, device: torch.device) -> Any:
    """Move the tensors of a batch, in its nesting, to a device; everything else stays as it is."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: on_device(part, device) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(on_device(part, device) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(on_device(part, device) for part in value)
    return value


def batch_of(given: Any) -> Batch:
    """Take a loader's batch apart: `(images, masks)`, `(images, masks, thresholds)` or with something else third.

    Args:
        given: A tuple or list; images `(N, C, H, W)`, masks `(N, T, H, W)` or `(N, H, W)`, thresholds `(N,)`. Numbers
            third are thresholds; what else is there (texts, dictionaries) describes the samples.

    Raises:
        DatasetError: It is something else, or the parts do not fit each other.
    """
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) < 2:
        raise DatasetError(
            f"a batch is (images, masks) or (images, masks, thresholds), got {_described(given)}; "
            "give the loader a collate_fn that makes it so"
        )
    images, masks = given[0], given[1]
    if not isinstance(images, torch.Tensor) or images.dim() != 4:
        raise DatasetError(f"images are a tensor (N, C, H, W), got {_described(images)}")
    if not isinstance(masks, torch.Tensor) or masks.dim() not in (3, 4):
        raise DatasetError(f"masks are a tensor (N, T, H, W) or (N, H, W), got {_described(masks)}")
    masks = masks[:, None] if masks.dim() == 3 else masks
    if len(masks) != len(images) or masks.shape[2:] != images.shape[2:]:
        raise DatasetError(
            f"each image has a mask of its height and width, got images {tuple(images.shape)} and masks "
            f"{tuple(masks.shape)}"
        )
    return Batch(images.float(), masks, _thresholds(given[2] if len(given) > 2 else None, images))


def _thresholds(given: Any, images: torch.Tensor) -> torch.Tensor | None:
    """Take a third part for thresholds where it is numbers, one a sample; descriptions of samples are not."""
    if isinstance(given, list | tuple) and given and all(isinstance(value, int | float) for value in given):
        given = torch.tensor(given)
    if not isinstance(given, torch.Tensor):
        return None
    if given.numel() != len(images):
        raise DatasetError(
            f"thresholds are one number of metres a sample, got {_described(given)} for {len(images)} images"
        )
    return given.reshape(-1).to(images.device, torch.float32)


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


__all__ = ["Batch", "batch_of", "on_device"]
