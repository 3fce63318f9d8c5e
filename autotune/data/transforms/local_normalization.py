"""Normalisation of images by what is not background, for single images and for the dictionaries of MONAI pipelines."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch

from autotune.errors import SpecError

CONSTANT_SPREAD = 32 * float(np.finfo(np.float32).eps)
"""Pixels that differ by no more than this share of the largest are one value: resizing rounds about that far, and
a 16-bit step is four times as much."""


class LocalNormalizeByMask:
    """Brings the non-zero pixels of an image to mean 0 and standard deviation 1, and keeps its background at 0.

    Mean and (population) standard deviation are those of the non-zero pixels, over all channels together. Pixels
    that are not finite count as background. An image without any other pixel gives zeros, and so does one whose
    non-zero pixels are all the same (`CONSTANT_SPREAD`). A pixel that has the mean itself becomes 0 too.

    Arrays of numpy and tensors stay what they are, subclasses (MONAI's `MetaTensor`, with what it carries) and
    devices included; the result is new and float32. It is computed on the host by one thread in float64, so that
    worker processes and the main one give the same bits.
    """

    deterministic = True

    @overload
    def __call__(self, image: torch.Tensor) -> torch.Tensor: ...

    @overload
    def __call__(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]: ...

    def __call__(self, image: Any) -> Any:
        """Normalise one image of any shape.

        Raises:
            SpecError: It is neither an array nor a tensor, or of complex numbers.
        """
        if isinstance(image, torch.Tensor):
            plain = image.detach().as_subclass(torch.Tensor)
            pixels = (plain.float() if plain.dtype == torch.bfloat16 else plain).cpu().numpy()
            normal = torch.from_numpy(_normalized(pixels))
            if type(image) is torch.Tensor and image.device.type == "cpu":
                return normal
            made = image.detach().to(torch.float32, copy=True)
            made.as_subclass(torch.Tensor).copy_(normal)
            return made
        if isinstance(image, np.ndarray):
            return _normalized(np.asarray(image))
        raise SpecError(f"an image is a numpy array or a tensor, got {type(image).__qualname__}")


class ApplyLocalNormd:
    """Applies `LocalNormalizeByMask` to some values of a dictionary, each by itself, as MONAI's transforms in `d` do.

    Args:
        keys: Key of an image, or several.
        allow_missing_keys: Whether keys that a dictionary does not have are passed over.

    Raises:
        SpecError: There is no key.
    """

    deterministic = True

    def __init__(self, keys: Hashable | Iterable[Hashable], allow_missing_keys: bool = False) -> None:
        self.keys = _as_keys(keys)
        self.allow_missing_keys = allow_missing_keys
        self.normalize = LocalNormalizeByMask()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Give a copy of the dictionary with the images normalised.

        Raises:
            SpecError: A key is missing.
        """
        if not self.allow_missing_keys:
            _check_present(self.keys, data)
        return {**data, **{key: self.normalize(data[key]) for key in self.keys if key in data}}


class ToTuple:
    """Takes some values out of a dictionary, in the order of the keys.

    Args:
        keys: Key of a value, or several.

    Raises:
        SpecError: There is no key.
    """

    deterministic = True

    def __init__(self, keys: Hashable | Iterable[Hashable]) -> None:
        self.keys = _as_keys(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> tuple[Any, ...]:
        """Give the values as a tuple.

        Raises:
            SpecError: A key is missing.
        """
        _check_present(self.keys, data)
        return tuple(data[key] for key in self.keys)


def _normalized(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if pixels.dtype.kind not in "biuf":
        raise SpecError(f"an image holds real numbers, got {pixels.dtype}")
    normal = np.zeros(pixels.shape, dtype=np.float32)
    mask = pixels != 0
    if pixels.dtype.kind == "f":
        mask &= np.isfinite(pixels)
    values = pixels[mask].astype(np.float64)
    if not values.size:
        return normal
    low, high = float(values.min()), float(values.max())
    largest = max(-low, high)
    values /= largest  # the result is the same, and squares of the very large and small stay numbers
    if (high / largest) - (low / largest) > CONSTANT_SPREAD:
        normal[mask] = (values - values.mean()) / values.std()
    return normal


def _as_keys(keys: Hashable | Iterable[Hashable]) -> tuple[Hashable, ...]:
    several = isinstance(keys, Iterable) and not isinstance(keys, str | bytes)
    chosen: tuple[Hashable, ...] = tuple(keys) if several else (keys,)  # type: ignore[assignment,arg-type]
    if not chosen:
        raise SpecError("keys name at least one value of the dictionary, got none")
    return chosen


def _check_present(keys: tuple[Hashable, ...], data: Mapping[Hashable, Any]) -> None:
    missing = [key for key in keys if key not in data]
    if missing:
        raise SpecError(
            f"a dictionary must have every key of {list(keys)}, got {list(data)} without {missing}; "
            "allow_missing_keys=True passes over missing images"
        )


__all__ = ["CONSTANT_SPREAD", "ApplyLocalNormd", "LocalNormalizeByMask", "ToTuple"]
