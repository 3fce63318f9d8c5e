"""Datasets that study files name by dotted path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autotune.data.datasets.gaps import GapMaskDataset
from autotune.data.datasets.images import ImageFilesDataset
from autotune.data.datasets.raster import GeoTiffPairDataset
from autotune.data.datasets.sample_tiles import GAP_HEIGHT_M, forest_gap_tiles
from autotune.data.datasets.windows import Size
from autotune.home import home_folder

_CANOPY_HEIGHTS = "**/*[cC][hH][mM]*.tif"
"""Surface and terrain models lie beside canopy heights, so the names are matched."""


def forest_gaps(
    root: str | None = None,
    *,
    folder: str | None = None,
    count: int = 600,
    size: int = 256,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> GeoTiffPairDataset | GapMaskDataset:
    """Give canopy-height tiles with masks of gaps under 5 m, drawn once into the data folder, or of real rasters.

    Args:
        root: Folder for generated data; None is `data` in autotune's home (`AUTOTUNE_HOME`).
        folder: Folder of real canopy-height rasters (`*chm*.tif`, in it or below) to cut windows from instead,
            relative to the current one.
        count: Number of generated tiles.
        size: Side of tiles, or of windows, in pixels.
        seed: Seed of the drawing.
        progress: Told how many tiles are drawn.
        **settings: Further settings of `GeoTiffPairDataset`, or with `folder` of `GapMaskDataset`.
    """
    if folder is not None:
        cut = {"window": size, "threshold": GAP_HEIGHT_M, **settings}
        return GapMaskDataset.from_folder(folder, _CANOPY_HEIGHTS, **cut)
    drawn = forest_gap_tiles(
        home_folder() / "data" if root is None else Path(root).expanduser(),
        count=count,
        size=size,
        seed=seed,
        progress=progress,
    )
    names = [f"{number:05d}.tif" for number in range(count)]
    return GeoTiffPairDataset(
        [drawn / "heights" / name for name in names],
        [drawn / "gaps" / name for name in names],
        **{"size": size, "bands": (1,), **settings},
    )


def forest_gaps_chm(folder: str, pattern: str | Sequence[str] = "**/*.tif", **settings: Any) -> GapMaskDataset:
    """Give windows of the canopy-height rasters in a folder, with their gaps.

    Args:
        folder: Folder that is searched; relative to the current one.
        pattern: Glob pattern, or several.
        **settings: Further settings of `GapMaskDataset`.
    """
    return GapMaskDataset.from_folder(folder, pattern, **settings)


def image_folder(folder: str, *, size: Size | None = None, **settings: Any) -> ImageFilesDataset:
    """Give the images under a folder, labelled by the folders inside it.

    Args:
        folder: Folder that is searched; relative to the current one.
        size: Height and width that every image is resized to, or one number for a square; None keeps each
            image's own.
        **settings: Further settings of `ImageFilesDataset`.
    """
    return ImageFilesDataset.from_folder(folder, size=size, **settings)
