"""Realistic canopy-height tiles with gap masks, drawn once by seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import from_origin

from autotune.data.datasets.drawn_once import Progress, drawn_once
from autotune.errors import SpecError

GAP_HEIGHT_M = 5.0
"""Canopy lower than this is a gap."""

_VERSION = 1
"""Part of the folder's name: raised when the drawing changes, so that old tiles are not taken for new ones."""
_CRS = "EPSG:32633"
_TILED = {"driver": "GTiff", "count": 1, "crs": _CRS, "tiled": True, "blockxsize": 256, "blockysize": 256}


def forest_gap_tiles(
    root: Path,
    *,
    count: int = 600,
    size: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Draw tiles into a folder, once, and give the folder.

    It holds `heights/00000.tif` (float32 metres, tiled LZW with predictor 3) and `gaps/00000.tif` (uint8,
    1 below 5 m, deflate) with a metric coordinate system. The folder appears only when it is complete; the
    same seed gives the same pixels. Two processes that ask at once draw it once.

    Args:
        root: Folder for generated data.
        count: Number of tiles.
        size: Side in pixels of 1 m.
        seed: Seed of everything random.
        progress: Told how many tiles are there.

    Raises:
        SpecError: `count` is under 1 or `size` under 16.
    """
    if count < 1 or size < 16:
        raise SpecError(f"tiles need count >= 1 and size >= 16, got count={count} and size={size}")
    name = f"forest_gaps-v{_VERSION}-{count}x{size}-seed{seed}"
    return drawn_once(root, name, lambda folder: _draw_all(folder, (count, size, seed), progress))


def draw_heights(size: int, seed: int, number: int) -> npt.NDArray[np.float32]:
    """Draw the canopy heights of one tile in metres, rounded to the centimetre as laser surveys are.

    Stand height varies over tens of metres, crowns over a few; gaps and clearings are where a third field
    is lowest, with regrowth between ground and canopy at their edges.
    """
    generator = np.random.default_rng((seed, number))
    stand = _smooth_noise(generator, size, 30.0)
    crowns = _smooth_noise(generator, size, 2.5)
    openness = _smooth_noise(generator, size, generator.uniform(6.0, 14.0))
    roughness = generator.standard_normal((size, size)) * 0.4
    canopy = generator.uniform(16.0, 28.0) + 4.0 * stand + 2.5 * crowns + roughness
    edge = generator.uniform(-1.5, -0.8)
    closed = np.clip((openness - edge) / 0.25 + 0.5, 0.0, 1.0)
    ground = np.abs(generator.standard_normal((size, size))) * 0.3
    heights = np.maximum(closed * canopy + (1.0 - closed) * ground, 0.0)
    rounded: npt.NDArray[np.float32] = np.round(heights, 2).astype(np.float32)
    return rounded


def _smooth_noise(generator: np.random.Generator, size: int, scale_m: float) -> npt.NDArray[np.float64]:
    """Draw Gaussian noise of unit variance that is smooth over `scale_m` pixels."""
    spectrum = np.fft.rfft2(generator.standard_normal((size, size)))
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    spectrum *= np.exp(-2.0 * (np.pi * scale_m) ** 2 * (rows**2 + columns**2))
    spectrum[0, 0] = 0.0
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return noise / max(float(noise.std()), 1e-9)


def _draw_all(folder: Path, shape: tuple[int, int, int], progress: Progress | None) -> None:
    count, size, seed = shape
    for part in ("heights", "gaps"):
        (folder / part).mkdir(parents=True)
    columns = max(1, round(count**0.5))
    with rasterio.Env(GDAL_NUM_THREADS="1"):
        for number in range(count):
            heights = draw_heights(size, seed, number)
            row, column = divmod(number, columns)
            place = {"transform": from_origin(500_000 + column * size, 5_400_000 - row * size, 1.0, 1.0)}
            gaps = (heights < GAP_HEIGHT_M).astype(np.uint8)
            name = f"{number:05d}.tif"
            _write(folder / "heights" / name, heights, {"compress": "lzw", "predictor": 3, **place})
            _write(folder / "gaps" / name, gaps, {"compress": "deflate", **place})
            if progress is not None:
                progress(number + 1, count)


def _write(path: Path, pixels: npt.NDArray[Any], options: dict[str, Any]) -> None:
    height, width = pixels.shape
    with rasterio.open(path, "w", **_TILED, height=height, width=width, dtype=pixels.dtype.name, **options) as file:
        file.write(pixels, 1)
