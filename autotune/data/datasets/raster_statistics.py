"""Statistics of rasters: what a choice of normalisation means for the files of the training data."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autotune.data.datasets.raster_files import Box, OpenRasters, Pixels, invalid_pixels, raster_bands, raster_size
from autotune.data.transforms.normalization import Normalization, fit_normalization, fitted_kind
from autotune.errors import SampleError, SpecError

Paths = Sequence[str | os.PathLike[str]]
NormalizationChoice = Normalization | str | os.PathLike[str] | None
"""Statistics, the kind that is fitted, or the JSON file of saved statistics; None leaves pixels as they are."""

_BLOCK_VALUES = 4 * 1024**2
"""Values that are read at once while statistics are fitted: 32 MB as float64."""


def fitted(
    choice: NormalizationChoice,
    paths: Paths,
    *,
    bands: Collection[int] | None = None,
    nodata_zero_is_invalid: bool = False,
    box: Box | None = None,
    seed: int = 0,
) -> Normalization | None:
    """Give the statistics that a choice means, fitted to rasters where it is the name of a kind.

    Args:
        choice: Statistics, kind, or the JSON file of saved statistics.
        paths: Rasters of the training data.
        bands: Bands, counted from 1; None is all.
        nodata_zero_is_invalid: Whether a declared nodata value of 0 counts.
        box: Part of each raster that is looked at; None is all of it.
        seed: Seed of the sample that `robust` draws.

    Raises:
        SpecError: The choice is neither a kind nor a file of statistics.
        DatasetError: A band has no measurement.
        SampleError: A raster cannot be read.
    """
    if choice is None or isinstance(choice, Normalization):
        return choice
    kind = fitted_kind(choice) if isinstance(choice, str) else None
    if kind is not None:
        blocks = raster_blocks(paths, bands=bands, nodata_zero_is_invalid=nodata_zero_is_invalid, box=box)
        return fit_normalization(kind, blocks, seed=seed)
    if isinstance(choice, str) and not Path(choice).exists():
        raise SpecError(
            f"normalization is min_max, z_score, robust, a Normalization or the JSON file of one, got {choice!r}"
        )
    return Normalization.load(choice)


def raster_blocks(
    paths: Paths,
    *,
    bands: Collection[int] | None = None,
    nodata_zero_is_invalid: bool = False,
    box: Box | None = None,
) -> Iterator[tuple[Pixels, npt.NDArray[np.bool_]]]:
    """Give the pixels of rasters strip by strip, with what was not measured: each file once, some rows at a time.

    Args:
        paths: Rasters.
        bands: Bands, counted from 1; None is all.
        nodata_zero_is_invalid: Whether a declared nodata value of 0 counts.
        box: Part of each raster; None is all of it.

    Raises:
        SampleError: A raster cannot be read.
    """
    files = OpenRasters()
    chosen = None if bands is None else tuple(bands)
    expected: int | None = None
    for path in [os.fspath(path) for path in paths]:
        height, width = raster_size(path)
        top, left, rows, columns = box or (0, 0, height, width)
        count = bands_to_read(path, chosen)
        if count != (expected := expected or count):
            raise SampleError(f"every image needs the {expected} bands of the first, got {count}", path)
        step = max(1, _BLOCK_VALUES // (columns * count))
        for row in range(top, top + rows, step):
            raster = files.read(path, (row, left, min(step, top + rows - row), columns), bands=chosen)
            yield raster.pixels, invalid_pixels(raster, zero_is_invalid=nodata_zero_is_invalid)


def bands_to_read(path: str | os.PathLike[str], bands: Collection[int] | None) -> int:
    """Give the number of bands that a raster is read with; GDAL is asked only where it is no TIFF.

    Raises:
        SpecError: Bands are asked for that it does not have.
        SampleError: It cannot be read.
    """
    count = raster_bands(os.fspath(path))
    if bands is None:
        return count
    wrong = sorted(band for band in bands if not 1 <= band <= count)
    if wrong or not bands:
        raise SpecError(f"bands are counted from 1, and {os.fspath(path)} has {count}, got bands={tuple(bands)}")
    return len(bands)


__all__ = ["NormalizationChoice", "Paths", "bands_to_read", "fitted", "raster_blocks"]
