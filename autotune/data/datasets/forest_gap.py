"""Forest gaps for training: normalised windows of rasters with masks, given or drawn from canopy heights."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from autotune.data.datasets.gaps import IGNORED, GapMaskDataset
from autotune.data.datasets.raster import GeoTiffPairDataset
from autotune.data.datasets.raster_files import (
    OpenRasters,
    Pixels,
    Raster,
    invalid_pixels,
    raster_metadata,
    raster_size,
)
from autotune.data.datasets.raster_statistics import NormalizationChoice, Paths, bands_to_read, fitted
from autotune.data.datasets.windows import Size
from autotune.data.stages import StagedDataset
from autotune.data.transforms.augmentation import SeededAugmentation, check_layout
from autotune.data.transforms.device_normalization import NormalizesImages, check_normalize_on
from autotune.data.transforms.normalization import Normalization
from autotune.errors import DatasetError, SampleError, SpecError

GAP_THRESHOLDS = (5.0, 10.0, 15.0, 20.0)
"""Canopy heights in metres under which a pixel is a gap."""


class ForestDataset(StagedDataset):
    """What the datasets of forest gaps share: normalisation, which is stored, and augmentation, which is not.

    With `normalize_on="device"` samples hold what was measured, and NaN where nothing was; `device_transform` then
    normalises whole batches after the transfer and puts `fill` at those pixels.

    Attributes:
        bands: Bands of the image, counted from 1; None is all of its file.
        normalize_on: Where images are normalised: `loader` or `device`.
        device_transform: What normalises batches on the device; None where the loader does, or nothing.
        augmentation: What image and mask are augmented by; None without.
        band_count: Bands of the image.
    """

    unfingerprinted: Any = ("augmentation", "_normalization")
    bands: Any
    _open: Any
    _windows: Any

    def _prepare(
        self, normalization: Normalization | None, augmentation: Any, *, bands: int, normalize_on: str
    ) -> None:
        self.normalize_on = check_normalize_on(normalize_on)
        self.band_count = bands
        if self.normalize_on == "device" and augmentation is not None:
            raise SpecError(
                "augmentation is made for normalised images, and normalize_on='device' normalises after it; leave "
                "augmentation out, or take normalize_on='loader'"
            )
        self.normalization = normalization
        if augmentation is not None and not isinstance(augmentation, SeededAugmentation):
            augmentation = SeededAugmentation(augmentation)
        self.augmentation = augmentation

    @property
    def normalization(self) -> Normalization | None:
        """Statistics that images are normalised by, from the next sample on where others are set; None leaves them.

        Raises:
            SpecError: The statistics that are set are for another number of bands.
        """
        return self._normalization

    @normalization.setter
    def normalization(self, normalization: Normalization | None) -> None:
        if normalization is not None:
            normalization.check_bands(self.band_count)
        self._normalization = normalization
        on_device = self.normalize_on == "device"
        self._stored_normalization = None if on_device else normalization
        self._marks_missing = on_device and normalization is not None
        self.device_transform: NormalizesImages | None = None
        if on_device and normalization is not None:
            self.device_transform = NormalizesImages(normalization.centre, normalization.scale, missing=self._filled)

    @property
    def _filled(self) -> float:
        """Value that pixels without a measurement have in training."""
        raise NotImplementedError

    @property
    def augments_samples(self) -> bool:
        """Whether samples have a random part."""
        return self.augmentation is not None

    def augment(self, sample: Any, generator: torch.Generator) -> Any:
        """Augment image and mask alike.

        Raises:
            SpecError: The augmentation changes the size that samples are declared to have, channels or types, or
                loses values outside 0 to 1, such as heights and z-scores, as `SeededAugmentation` tells.
        """
        if self.augmentation is None:
            return sample
        parts = dict(zip(("image", "mask"), map(_channels_last, sample[:2]), strict=True))
        made = self.augmentation(generator, **parts)
        # Files of unknown size are not declared to have one: they may be cut to one size.
        size = getattr(self, "window", None) or getattr(self, "size", None) or made["image"].shape[:2]
        for name, part in parts.items():
            check_layout(name, made[name], size=size, channels=part.shape[2], dtypes=(part.dtype,))
        return (_channels_first(made["image"]), _channels_first(made["mask"]), *sample[2:])

    def with_normalization(self, normalization: Normalization | None) -> Self:
        """Give a copy that normalises otherwise.

        Raises:
            SpecError: The statistics are for another number of bands.
        """
        changed = self._copied()
        changed.normalization = normalization
        return changed

    def without_augmentation(self) -> Self:
        """Give a copy whose samples have no random part."""
        changed = self._copied()
        changed.augmentation = None
        return changed

    def window_origins(self) -> npt.NDArray[np.int64] | None:
        """Give file, row and column of each window, shape `(windows, 3)`; None where samples are whole files."""
        found: npt.NDArray[np.int64] | None = self._windows
        return None if found is None else found.copy()

    @property
    def window_size(self) -> tuple[int, int]:
        """Height and width of a window.

        Raises:
            DatasetError: Samples are whole files.
        """
        size: tuple[int, int] | None = getattr(self, "window", None)
        if size is None:
            raise DatasetError("samples are whole files here; give a window")
        return size

    def _copied(self) -> Self:
        changed = copy.copy(self)
        changed._open = copy.copy(self._open)  # noqa: SLF001  # its own class; a copy opens its own files
        return changed


class ForestGapDataset(ForestDataset, GeoTiffPairDataset):
    """Images with gap masks, normalised and augmented on request.

    A sample is `(image, mask)`: float32 `(bands, H, W)` and uint8 `(1, H, W)`; with `metadata` a third part holds
    path, coordinate system, transform, nodata and window. Every image must have the bands of the first.

    Args:
        input_paths: Images.
        mask_paths: Masks, one for each image, in the same order; `HeightGapDataset` makes them from canopy heights.
        normalization: Statistics, a kind that is fitted to these images (`min_max`, `z_score`, `robust`), or a JSON
            file of saved statistics. Pixels without a measurement count neither here nor there: they get `fill`
            after it, which is 0 and so the mean under `z_score`.
        normalize_on: Where: `loader` where samples are loaded, or `device` in whole batches after the transfer, by
            `device_transform`, which no augmentation goes with.
        augmentation: Albumentations transform of image and mask, drawn anew each epoch and never stored. It keeps
            the size of windows. What changes brightness or adds noise clips images to 0 to 1 and is refused where
            values lie outside, as heights and z-scores do: it goes with `normalization="min_max"`.
        bands: Bands of the image, counted from 1; None is all.
        nodata_zero_is_invalid: Whether a declared nodata value of 0 counts.
        dtype: Type of the image; with `normalization` a type of floats.
        **settings: Further settings of `GeoTiffPairDataset`: `window`, `stride`, `fill`, `ignore_index`, `metadata` ...

    Raises:
        DatasetError: There is no image, or not one mask for each.
        SpecError: A setting breaks a rule, or statistics are for another number of bands.
        SampleError: The first image cannot be read.
    """

    def __init__(
        self,
        input_paths: Paths,
        mask_paths: Paths,
        *,
        normalization: NormalizationChoice = None,
        normalize_on: str = "loader",
        augmentation: Any = None,
        bands: Sequence[int] | None = None,
        nodata_zero_is_invalid: bool = False,
        dtype: str | None = "float32",
        **settings: Any,
    ) -> None:
        inputs, masks = _listed(input_paths), _listed(mask_paths)
        if not inputs:
            raise DatasetError("a dataset of forest gaps needs at least one image, got none")
        if normalization is not None and (dtype is None or np.dtype(dtype).kind != "f"):
            raise SpecError(f"normalisation gives floats, got dtype={dtype!r}; take float32 or float64")
        if normalize_on == "device":
            _check_holds_measurements(dtype, settings.get("nodata", "mask"))
        super().__init__(
            inputs, masks, bands=bands, nodata_zero_is_invalid=nodata_zero_is_invalid, dtype=dtype, **settings
        )
        count = bands_to_read(inputs[0], self.bands)
        statistics = fitted(normalization, inputs, bands=self.bands, nodata_zero_is_invalid=nodata_zero_is_invalid)
        self._prepare(statistics, augmentation, bands=count, normalize_on=normalize_on)

    @property
    def missing_pixel(self) -> float:
        """Value that samples have where nothing was measured."""
        return np.nan if self._marks_missing else self.fill

    @property
    def _filled(self) -> float:
        return self.fill

    def sample_structure(self) -> str | None:
        """Declare the structure of a sample, where it is known without opening a file."""
        side = self.window or self.size
        if side is None or self.dtype is None or self.metadata:
            return None
        height, width = side
        return f"({self.dtype}[{self.band_count},{height},{width}], {self.mask_dtype}[1,{height},{width}])"

    def _treat(self, image: Raster, mask: Raster, path: str | None) -> tuple[Pixels, Pixels]:
        """Normalise what was measured, then apply the nodata rule and the types."""
        if len(image.pixels) != self.band_count:
            raise SampleError(
                f"every image needs the {self.band_count} bands of the first, got {len(image.pixels)}; "
                "choose some by bands=(...)",
                path,
            )
        if self._stored_normalization is not None:
            missing = invalid_pixels(image, zero_is_invalid=self.nodata_zero_is_invalid)
            pixels = self._stored_normalization.apply(image.pixels)
            # no value means "not measured" any more, and what is not finite always does
            pixels[missing] = np.nan if self.nodata == "mask" else image.pixels[missing]
            image = Raster(pixels=pixels, nodata=None, crs=image.crs, transform=image.transform)
        return super()._treat(image, mask, path)


class HeightGapDataset(ForestDataset, GapMaskDataset):
    """Windows of canopy height with the gaps that follow from them: no mask files are needed.

    A sample is `(height, gaps)`: float32 `(1, H, W)` and uint8 `(thresholds, H, W)`, 1 where the canopy is lower than
    the threshold. A pixel without a measurement is never a gap. Gaps are found in metres, before normalisation.

    Args:
        input_paths: Canopy-height rasters; their first band is read.
        thresholds: Heights in metres under which a pixel is a gap; one channel each.
        window: Size of the windows in pixels; None takes whole rasters, filled up to the largest.
        stride: Step from window to window; windows cover every pixel.
        normalization: As `ForestGapDataset` takes it.
        normalize_on: As `ForestGapDataset` takes it.
        augmentation: As `ForestGapDataset` takes it.
        nodata_zero_is_invalid: Whether a declared nodata value of 0 counts; by default 0 m is a gap.
        fill: What the height gets where nothing was measured, after normalisation.
        ignore_index: Value that the gaps get there; None is 0, no gap.
        metadata: Whether samples have a third part, as those of `ForestGapDataset`.
        seed: Seed of the augmentation.

    Raises:
        DatasetError: There is no raster.
        SpecError: A setting breaks a rule.
        SampleError: A raster cannot be read.
    """

    staged = False  # a window would carry the bytes of its whole file

    def __init__(
        self,
        input_paths: Paths,
        *,
        thresholds: float | Sequence[float] = GAP_THRESHOLDS,
        window: Size | None = None,
        stride: Size | None = None,
        normalization: NormalizationChoice = None,
        normalize_on: str = "loader",
        augmentation: Any = None,
        nodata_zero_is_invalid: bool = False,
        fill: float = 0.0,
        ignore_index: int | None = None,
        metadata: bool = False,
        seed: int = 0,
    ) -> None:
        inputs = _listed(input_paths)
        if stride is not None and window is None:
            raise SpecError(f"stride needs a window, got stride={stride!r} with window=None")
        if ignore_index is not None and not 0 <= ignore_index <= IGNORED:
            raise SpecError(f"ignore_index is a value of uint8, 0 to 255, got {ignore_index}")
        StagedDataset.__init__(self, seed=seed)
        GapMaskDataset.__init__(
            self,
            inputs,
            threshold=thresholds,
            window=_largest(inputs) if inputs and window is None else window or 1,
            stride=stride,
            invalid="report",
            nodata_zero_is_invalid=nodata_zero_is_invalid,
        )
        self.bands = (1,)
        self.missing_height = fill
        self.ignore_index = ignore_index
        self.metadata = metadata
        self._open = OpenRasters(place=metadata)
        statistics = fitted(normalization, inputs, bands=(1,), nodata_zero_is_invalid=nodata_zero_is_invalid)
        self._prepare(statistics, augmentation, bands=1, normalize_on=normalize_on)

    def __getitem__(self, index: int) -> Any:
        return StagedDataset.__getitem__(self, index)  # by name, as there is a second base with its own

    @property
    def _filled(self) -> float:
        return self.missing_height

    def base_sample(self, index: int) -> Any:
        """Read one window before augmentation."""
        heights, gaps = GapMaskDataset.__getitem__(self, index)
        missing = gaps[:1] == IGNORED
        if self._stored_normalization is not None:
            heights = self._stored_normalization.apply(heights)
        heights[missing] = torch.nan if self._marks_missing else self.missing_height
        gaps[missing.expand_as(gaps)] = self.ignore_index or 0
        return (heights, gaps, self._place(index)) if self.metadata else (heights, gaps)

    def sample_structure(self) -> str | None:  # type: ignore[override]  # unknown with metadata
        """Declare the structure of a sample, where it is known without opening a file."""
        return None if self.metadata else super().sample_structure()

    def _place(self, index: int) -> dict[str, Any]:
        """Describe where a window comes from, in types that torch collates."""
        number, row, column = self._windows[index].tolist()
        height, width = self._sizes[number].tolist()
        box = (row, column, min(self.window[0], height - row), min(self.window[1], width - column))
        corner = self._open.read(self.path_of(index), (row, column, 1, 1), bands=(1,))
        return raster_metadata(corner, self.path_of(index), box)


def _listed(paths: Paths | str | os.PathLike[str] | None) -> list[str]:
    """Give paths as a list, where one alone may be given too."""
    if paths is None:
        raise SpecError("mask_paths are needed here, got None; create_dataset(paths) makes masks from canopy heights")
    if isinstance(paths, str | os.PathLike):
        return [os.fspath(paths)]
    return [os.fspath(path) for path in paths]


def _check_holds_measurements(dtype: str | None, nodata: str) -> None:
    """Refuse settings with which samples cannot hold what the device is to normalise."""
    if nodata != "mask" or dtype is None or np.dtype(dtype) not in (np.float32, np.float64):
        raise SpecError(
            "with normalize_on='device' samples hold values as they were measured, and NaN where nothing was: that "
            f"takes nodata='mask' and float32 or float64, got nodata={nodata!r} and dtype={dtype!r}"
        )


def _largest(paths: Sequence[str]) -> tuple[int, int]:
    sizes = [raster_size(path) for path in paths]
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def _channels_last(pixels: torch.Tensor) -> Pixels:
    # a copy: what the transform changes in place may lie in a cache that others read
    return np.array(pixels.numpy().transpose(1, 2, 0), order="C")


def _channels_first(pixels: Pixels) -> torch.Tensor:
    stacked = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(stacked))


__all__ = ["GAP_THRESHOLDS", "ForestDataset", "ForestGapDataset", "HeightGapDataset"]
