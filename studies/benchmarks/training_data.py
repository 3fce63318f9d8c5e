"""What is trained in `training.py`: tiles of canopy heights with gap masks, a U-Net, its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rasterio
import torch
from rasterio.transform import Affine
from torch.utils.data import Dataset

from autotune.data.datasets.sample_tiles import forest_gap_tiles
from autotune.loaders import create_dataset
from autotune.training import Config
from autotune.training.models import ThresholdUNet

REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "forest_gaps"
GAP_HEIGHT_M = 5.0

_SIDE = 64
_VALIDATES = frozenset({"CHM.tif", "chm_150_2014.tif"})
"""Real rasters that validate: places of their own. Those of one place in two years both train."""
_VAL_STRIDE = 32
_GENERATED_VAL_SHARE = 0.1


def write_source(data: Path, *, work: Path, stride: int, tiles: int) -> dict[str, Any]:
    """Cut the real rasters into tiles, or draw some where there are none, and describe the data.

    Args:
        data: Folder of real rasters.
        work: Folder for tiles, with the statistics of those that train.
        stride: Step from tile to tile in pixels; smaller ones overlap and so are more.
        tiles: Number of generated tiles.
    """
    rasters = sorted(path for path in data.glob("**/*.tif") if "chm" in path.name.lower())
    held_out = [path for path in rasters if path.name in _VALIDATES]
    if held_out:
        folder = work / "tiles"
        train = _cut([path for path in rasters if path not in held_out], folder, stride=stride, first=0)
        _cut(held_out, folder, stride=_VAL_STRIDE, first=train)
        title = f"{len(rasters)} real canopy-height rasters"
    else:
        folder = forest_gap_tiles(work, count=tiles, size=_SIDE, seed=0)
        train, title = round(tiles * (1 - _GENERATED_VAL_SHARE)), "generated canopy heights"
    statistics = folder / "statistics.json"
    create_dataset(*_pairs(folder, slice(train)), normalization="min_max").normalization.save(statistics)
    return {"folder": str(folder), "train": train, "statistics": str(statistics), "title": title}


def training_part(**source: Any) -> Dataset[Any]:
    """Give the tiles that train, as a study's factory."""
    return parts_of(source)[0]


def parts_of(source: Mapping[str, Any]) -> tuple[Dataset[Any], Dataset[Any]]:
    """Give tiles of 64 x 64 pixels with their gaps under 5 m: those that train, and those that validate."""
    folder, train = Path(source["folder"]), source["train"]
    pairs = (_pairs(folder, part) for part in (slice(train), slice(train, None)))
    first, second = (create_dataset(*pair, normalization=source["statistics"], size=_SIDE) for pair in pairs)
    return first, second


def _pairs(folder: Path, part: slice) -> tuple[list[Path], list[Path]]:
    heights, gaps = (sorted((folder / name).glob("*.tif"))[part] for name in ("heights", "gaps"))
    return heights, gaps


def _cut(rasters: Sequence[Path], folder: Path, *, stride: int, first: int) -> int:
    """Write the windows of rasters as numbered tiles, and give how many."""
    windows = create_dataset(rasters, thresholds=GAP_HEIGHT_M, window=_SIDE, stride=stride, metadata=True)
    for name in ("heights", "gaps"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(len(windows)):
        heights, gaps, place = windows[number]
        for name, pixels in (("heights", heights), ("gaps", gaps)):
            _write(folder / name / f"{first + number:05d}.tif", pixels, place)
    return len(windows)


def _write(path: Path, pixels: torch.Tensor, place: Mapping[str, Any]) -> None:
    """Write one tile where it lies."""
    bands = pixels.numpy()
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype.name,
        crs=place["crs"] or None, transform=Affine(*place["transform"]), compress="lzw",
    ) as file:  # fmt: skip
        file.write(bands)


def model_of(arguments: Mapping[str, Any], seed: int) -> ThresholdUNet:
    """Make the U-Net with weights of a seed."""
    torch.manual_seed(seed)
    return ThresholdUNet(**arguments)


def config_of(epochs: int, seed: int) -> Config:
    """Make the configuration of a training."""
    fields = {"learning_rate": 3e-3, "warmup_epochs": 0.5, "thresholds": (GAP_HEIGHT_M,), "device": "cpu"}
    return Config(epochs=epochs, seed=seed, **fields)
