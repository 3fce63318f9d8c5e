"""Normalisation of whole batches on the device: what `device_transform` is of datasets with `normalize_on="device"`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from autotune.data.transforms.local_normalization import CONSTANT_SPREAD
from autotune.errors import SpecError

NormalizeOn = Literal["loader", "device"]
"""Where images are normalised: sample by sample where they are loaded, or batch by batch after the transfer."""

_PLACES = ("loader", "device")


def check_normalize_on(value: str) -> NormalizeOn:
    """Give the place that a text names.

    Raises:
        SpecError: It names none.
    """
    if value not in _PLACES:
        raise SpecError(f"normalize_on must be one of {', '.join(_PLACES)}, got {value!r}")
    return "device" if value == "device" else "loader"


class NormalizesImages:
    """Normalises the first part of a batch: takes `centre` off each band and divides it by `scale`.

    Images are `(..., bands, H, W)`; with one centre and one scale any shape. Whole numbers become float32, floats
    keep their width. The batch keeps its nesting, and what it was made of stays as it is.

    Args:
        centre: What is taken off, one number or one for each band.
        scale: What is divided by.
        missing: What pixels get that are NaN, which marks what was not measured; None leaves them.

    Raises:
        SpecError: There are not as many centres as scales.
    """

    # Outside the dictionary, which fingerprints describe: it fills when batches come.
    __slots__ = ("__dict__", "_ready")

    def __init__(self, centre: Sequence[float], scale: Sequence[float], *, missing: float | None = None) -> None:
        if len(centre) != len(scale) or not centre:
            raise SpecError(f"each band needs a centre and a scale, got {len(centre)} centres and {len(scale)} scales")
        self.centre = tuple(float(value) for value in centre)
        self.scale = tuple(float(value) for value in scale)
        self.missing = missing
        self._ready: dict[tuple[torch.device, torch.dtype], tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, batch: Any) -> Any:
        """Normalise one batch, or one sample.

        Raises:
            SpecError: Its first part is no tensor, or one of other bands.
        """
        return change_parts(batch, self._normalized, parts=1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NormalizesImages) and self._settings() == other._settings()

    def __hash__(self) -> int:
        return hash(self._settings())

    def __getstate__(self) -> dict[str, Any]:
        return vars(self)  # tensors on a device are no part of it

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._ready = {}

    def __repr__(self) -> str:
        return f"NormalizesImages(centre={self.centre}, scale={self.scale}, missing={self.missing})"

    def _settings(self) -> tuple[Any, ...]:
        return self.centre, self.scale, repr(self.missing)  # NaN is not equal to itself

    def _normalized(self, images: torch.Tensor) -> torch.Tensor:
        bands = len(self.centre)
        if bands > 1 and (images.ndim < 3 or images.shape[-3] != bands):
            raise SpecError(f"normalisation of {bands} bands takes (..., bands, H, W), got {tuple(images.shape)}")
        centre, scale = self._constants(images)
        normalized = images.to(centre.dtype, copy=True).sub_(centre).div_(scale)
        return normalized if self.missing is None else torch.where(normalized.isnan(), self.missing, normalized)

    def _constants(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give centre and scale on the device of the images, copied there once: each copy would be waited for."""
        dtype = images.dtype if images.is_floating_point() else torch.float32
        key = images.device, dtype
        if key not in self._ready:
            shape = (-1, 1, 1) if len(self.centre) > 1 else ()
            both = (torch.tensor(values, dtype=torch.float64).reshape(shape) for values in (self.centre, self.scale))
            centre, scale = (values.to(dtype).to(images.device) for values in both)
            self._ready[key] = centre, scale
        return self._ready[key]


class NormalizesByMask:
    """Brings the non-zero pixels of each image of a batch to mean 0 and standard deviation 1; background stays 0.

    What `LocalNormalizeByMask` does with single images, to float tolerance: pixels that are not finite are
    background, and images whose other pixels are all the same give zeros. Sums are taken in float64, on devices
    without it (`mps`) in float32.

    Args:
        parts: Parts of a sample that are images, each normalised by itself: 1, or 2 of pairs.
    """

    def __init__(self, parts: int = 1) -> None:
        self.parts = parts

    def __call__(self, batch: Any) -> Any:
        """Normalise one batch of images `(N, channels, H, W)`.

        Raises:
            SpecError: It has not as many parts, or one is no tensor of batched images.
        """
        return change_parts(batch, _normalized_by_mask, parts=self.parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NormalizesByMask) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __repr__(self) -> str:
        return f"NormalizesByMask(parts={self.parts})"


def change_parts(batch: Any, change: Callable[[torch.Tensor], torch.Tensor], *, parts: int) -> Any:
    """Change the first parts of a batch, which is a tensor alone or a list or tuple, and keep the others.

    Raises:
        SpecError: The batch has another form, as a `collate_fn` of one's own may give it.
    """
    if isinstance(batch, torch.Tensor) and parts == 1:
        return change(batch)
    if type(batch) not in (list, tuple) or len(batch) < parts:
        raise SpecError(_expected(parts, batch))
    images = list(batch[:parts])
    for image in images:
        if not isinstance(image, torch.Tensor):
            raise SpecError(_expected(parts, image))
    return type(batch)([*map(change, images), *batch[parts:]])


def _expected(parts: int, got: object) -> str:
    return (
        f"the dataset's device_transform takes a batch whose first {parts} part(s) are tensors, got "
        f"{type(got).__qualname__}; with a collate_fn that gives something else, normalise with normalize_on='loader'"
    )


def _normalized_by_mask(images: torch.Tensor) -> torch.Tensor:
    if images.ndim < 2:
        raise SpecError(f"a batch of images is (N, channels, H, W), got {tuple(images.shape)}")
    exact = torch.float32 if images.device.type == "mps" else torch.float64
    pixels = images.flatten(1).to(exact)
    mask = (pixels != 0) & pixels.isfinite()
    values = torch.where(mask, pixels, 0)
    largest = values.abs().amax(1, keepdim=True)
    values = values / torch.where(largest > 0, largest, 1)  # squares of the very large and small stay numbers
    count = mask.sum(1, keepdim=True).clamp(min=1)
    low = torch.where(mask, values, torch.inf).amin(1, keepdim=True)
    high = torch.where(mask, values, -torch.inf).amax(1, keepdim=True)
    apart = torch.where(mask, values - values.sum(1, keepdim=True) / count, 0)
    spread = (apart.square().sum(1, keepdim=True) / count).sqrt()
    varies = (high - low > CONSTANT_SPREAD) & (spread > 0)
    normal = torch.where(varies, apart / torch.where(varies, spread, 1), 0)
    return normal.to(torch.float32).reshape(images.shape)


__all__ = ["NormalizeOn", "NormalizesByMask", "NormalizesImages", "change_parts", "check_normalize_on"]
