"""Normalisation of image bands: statistics of the training data, kept as JSON, and their use."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, ValidationError, model_validator

from autotune.data.transforms.band_statistics import BandStatistics, RunningStatistics
from autotune.errors import DatasetError, SpecError
from autotune.spec.base import Value, first_message

Pixels = npt.NDArray[Any]
Array = TypeVar("Array", npt.NDArray[Any], torch.Tensor)
Kind = Literal["fixed", "min_max", "z_score", "robust"]
FITTED_KINDS: tuple[Kind, ...] = ("min_max", "z_score", "robust")
"""Kinds that need a pass over the training data."""

SAMPLE_SIZE = 200_000
"""Values of each band that medians and quartiles are taken from; with so many, the share of values under the
estimated median is 50 % with a standard error of 0.11 %, and memory stays at 3 MB a band."""

_SPELLINGS = {"minmax": "min_max", "zscore": "z_score", "standard": "z_score"}


class Normalization(Value):
    """Takes `centre` off each band and divides it by `scale`.

    A band of one value is only centred (its scale is 1). So is a band of quartiles that coincide, under `robust`,
    where the standard deviation cannot stand in for their distance.

    Attributes:
        kind: `fixed` numbers; `min_max` to 0 and 1; `z_score` to mean 0 and standard deviation 1; `robust` to
            median 0 and quartiles one apart.
        centre: What is taken off, a number for each band.
        scale: What is divided by.
        bands: What the training data's bands are like; empty for `fixed`.
    """

    kind: Kind
    centre: Annotated[tuple[float, ...], Field(min_length=1)]
    scale: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    bands: tuple[BandStatistics, ...] = ()

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if len(self.centre) != len(self.scale):
            raise ValueError(
                f"each band needs a centre and a scale, got {len(self.centre)} centres and {len(self.scale)} scales"
            )
        if self.bands and len(self.bands) != len(self.centre):
            raise ValueError(f"statistics of {len(self.centre)} bands are needed, got {len(self.bands)}")
        return self

    @classmethod
    def fixed(cls, mean: float | Iterable[float], std: float | Iterable[float]) -> Self:
        """Take given means and standard deviations, one number or one for each band.

        Raises:
            SpecError: A standard deviation is not above 0, or there are not as many as means.
        """
        return cls._checked("fixed", _numbers(mean), _numbers(std))

    @classmethod
    def fixed_range(cls, low: float | Iterable[float], high: float | Iterable[float]) -> Self:
        """Take a given range to 0 and 1, one for all bands or one for each.

        Raises:
            SpecError: The upper end is not above the lower one, or there are not as many of them.
        """
        lows, highs = _numbers(low), _numbers(high)
        if len(lows) != len(highs) or any(one >= other for one, other in zip(lows, highs, strict=True)):
            raise SpecError(f"a range goes from its lower end to a higher one in each band, got {low!r} to {high!r}")
        return cls._checked("fixed", lows, tuple(other - one for one, other in zip(lows, highs, strict=True)))

    @classmethod
    def _checked(
        cls, kind: Kind, centre: tuple[float, ...], scale: tuple[float, ...], bands: tuple[BandStatistics, ...] = ()
    ) -> Self:
        try:
            return cls(kind=kind, centre=centre, scale=scale, bands=bands)
        except ValidationError as error:
            raise SpecError(f"normalisation {kind!r}: {first_message(error)}") from error

    @property
    def band_count(self) -> int:
        """Bands that it is made for."""
        return len(self.centre)

    def apply(self, pixels: Array) -> Array:
        """Normalise `(..., bands, H, W)`; whole numbers become floats, floats keep their width.

        Raises:
            SpecError: There are more or fewer bands.
        """
        centre, scale = self._beside(pixels)
        normalised: Array = (pixels - centre) / scale
        return normalised

    def inverse(self, pixels: Array) -> Array:
        """Give `(..., bands, H, W)` in the units of the data again.

        Raises:
            SpecError: There are more or fewer bands.
        """
        centre, scale = self._beside(pixels)
        restored: Array = pixels * scale + centre
        return restored

    def check_bands(self, count: int) -> None:
        """Refuse images of another number of bands.

        Raises:
            SpecError: There are more or fewer bands.
        """
        if count != self.band_count:
            raise SpecError(
                f"statistics of {self.band_count} bands do not fit an image of {count}; "
                "fit them on such images, or choose its bands"
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the statistics as JSON; the file is there whole or not at all."""
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        written = place.with_name(f".{place.name}.{uuid4().hex[:8]}")
        try:
            written.write_text(self.to_json() + "\n", encoding="utf-8")
            written.replace(place)
        finally:
            written.unlink(missing_ok=True)
        return place

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, bands: int | None = None) -> Self:
        """Read what `save` wrote.

        Args:
            path: The file.
            bands: Bands that it must be made for; None is any number.

        Raises:
            SpecError: The file cannot be read, holds something else, or is for another number of bands.
        """
        try:
            found = cls.from_json(Path(path).read_bytes())
            if bands is not None:
                found.check_bands(bands)
        except OSError as error:
            raise SpecError(f"saved statistics must be a JSON file, got {os.fspath(path)!r}: {error}") from error
        except SpecError as error:
            raise SpecError(f"{os.fspath(path)}: {error}") from error
        return found

    def _beside(self, pixels: Any) -> tuple[Any, Any]:
        """Give centre and scale as arrays that stretch over the pixels, of a type that holds their values."""
        if pixels.ndim < 3:
            raise SpecError(f"normalisation takes (..., bands, H, W), got the shape {tuple(pixels.shape)}")
        self.check_bands(int(pixels.shape[-3]))
        both = (np.asarray(numbers, dtype=np.float64).reshape(-1, 1, 1) for numbers in (self.centre, self.scale))
        if isinstance(pixels, torch.Tensor):
            dtype = pixels.dtype if pixels.is_floating_point() else torch.float32
            centre, scale = (torch.from_numpy(numbers).to(dtype=dtype, device=pixels.device) for numbers in both)
            return centre, scale
        width = np.result_type(pixels.dtype, np.float32)
        one, other = (numbers.astype(width) for numbers in both)
        return one, other


def fitted_kind(text: str) -> Kind | None:
    """Give the kind that a text names in any usual spelling (`z-score`, `zscore`, `minmax`); None where it names none.

    Raises:
        SpecError: It names `fixed`, which has numbers instead of training data.
    """
    plain = text.strip().lower().replace("-", "_").replace(" ", "_")
    name = _SPELLINGS.get(plain, plain)
    if name == "fixed":
        raise SpecError(
            "normalisation 'fixed' needs its numbers; give Normalization.fixed(mean=..., std=...) "
            "or Normalization.fixed_range(low=..., high=...)"
        )
    return next((kind for kind in FITTED_KINDS if kind == name), None)


def fit_normalization(
    kind: str,
    blocks: Iterable[tuple[Pixels, npt.NDArray[np.bool_]]],
    *,
    sample_size: int = SAMPLE_SIZE,
    seed: int = 0,
) -> Normalization:
    """Find the statistics of each band in one pass over blocks of any size.

    Args:
        kind: `min_max`, `z_score` or `robust`.
        blocks: Pixels `(bands, H, W)`, and where there is no measurement (True), of the same shape.
        sample_size: Values of each band that `robust` takes median and quartiles from; with fewer they are exact.
        seed: Seed of that sample.

    Raises:
        SpecError: There is no such kind.
        DatasetError: A band has no pixel with a measurement, or blocks differ in their bands.
    """
    known = fitted_kind(kind)
    if known is None:
        raise SpecError(f"normalisation must be one of {', '.join(FITTED_KINDS)}, got {kind!r}")
    if sample_size < 2:
        raise SpecError(f"a sample needs at least 2 values, got sample_size={sample_size}")
    running: list[RunningStatistics] = []
    for pixels, missing in blocks:
        if not running:
            generator = np.random.default_rng(seed)
            size = sample_size if known == "robust" else 0
            running = [RunningStatistics(size, each) for each in generator.spawn(len(pixels))]
        if len(pixels) != len(running):
            raise DatasetError(f"every image needs the bands of the first, got {len(pixels)} after {len(running)}")
        for band, values, absent in zip(running, pixels, missing, strict=True):
            band.add(values[~absent])
    if not running:
        raise DatasetError("normalisation is fitted on at least one image, got none")
    bands = tuple(band.statistics(number) for number, band in enumerate(running, start=1))
    pairs = [_centre_and_scale(known, band) for band in bands]
    return Normalization._checked(  # noqa: SLF001  # its own module
        known, tuple(centre for centre, _ in pairs), tuple(scale for _, scale in pairs), bands
    )


def _centre_and_scale(kind: Kind, band: BandStatistics) -> tuple[float, float]:
    if kind == "min_max":
        centre, scale = band.minimum, band.maximum - band.minimum
    elif kind == "z_score":
        centre, scale = band.mean, band.std
    else:
        centre, scale = band.median or 0.0, band.iqr or band.std
    return centre, scale if not band.constant and scale > 0 else 1.0


def _numbers(value: float | Iterable[float]) -> tuple[float, ...]:
    return (float(value),) if isinstance(value, int | float) else tuple(float(each) for each in value)


__all__ = ["FITTED_KINDS", "SAMPLE_SIZE", "BandStatistics", "Normalization", "fit_normalization", "fitted_kind"]
