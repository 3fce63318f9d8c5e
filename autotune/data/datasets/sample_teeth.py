"""Tooth-like grey images in pairs, drawn once by seed: a jaw with its teeth (`dente`) and without (`edente`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from autotune.data.datasets.drawn_once import Progress, drawn_once
from autotune.data.datasets.raster_files import gdal_settings
from autotune.errors import SpecError

WITH_TEETH = "dente"
WITHOUT_TEETH = "edente"

_VERSION = 1
"""Part of the folder's name: raised when the drawing changes, so that old images are not taken for new ones."""
_TEETH = 14
_FULL_SCALE = 4095
"""12 bits in 16, as X-ray detectors give them."""


def tooth_images(
    root: Path,
    *,
    count: int = 300,
    size: int = 320,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Draw pairs of images into a folder, once, and give the folder.

    It holds `dente/image_0001.tif` and `edente/image_0001.tif`, uint16 with LZW, 0 around the jaw. The folder
    appears only when it is complete; the same seed gives the same pixels. Two processes that ask at once draw it
    once.

    Args:
        root: Folder for generated data.
        count: Number of pairs.
        size: Side in pixels.
        seed: Seed of everything random.
        progress: Told how many pairs are there.

    Raises:
        SpecError: `count` is under 1 or `size` under 16.
    """
    if count < 1 or size < 16:
        raise SpecError(f"images need count >= 1 and size >= 16, got count={count} and size={size}")
    name = f"teeth-v{_VERSION}-{count}x{size}-seed{seed}"
    return drawn_once(root, name, lambda folder: _draw_all(folder, (count, size, seed), progress))


def draw_jaw(size: int, seed: int, number: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """Draw one jaw from above, with teeth and without.

    Bone lies along half an ellipse and is grained; teeth are brighter blobs on its line, each with a pulp.
    """
    generator = np.random.default_rng((seed, number))
    across, along = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    width, depth = generator.uniform(0.55, 0.7), generator.uniform(0.75, 0.95)
    radius = np.hypot(across / width, (along + 0.45) / depth)
    thickness = generator.uniform(0.16, 0.24)
    inside = np.clip(1 - ((radius - 1) / thickness) ** 2, 0, 1) * (along > -0.5)
    grain = 1 + 0.15 * generator.standard_normal((size, size))
    bone = np.where(inside > 0, (0.25 + 0.3 * inside) * grain, 0.0)
    teeth = np.zeros_like(bone)
    for angle in np.linspace(0.08, 0.92, _TEETH) * np.pi + generator.normal(0, 0.015, _TEETH):
        distance = np.hypot(across - width * np.cos(angle), along + 0.45 - depth * np.sin(angle))
        reach = generator.uniform(0.055, 0.085)
        crown = np.clip(1 - (distance / reach) ** 2, 0, 1)
        pulp = np.clip(1 - (distance / (0.3 * reach)) ** 2, 0, 1)
        teeth = np.maximum(teeth, np.sqrt(crown) - 0.5 * pulp)
    return _as_12_bits(np.maximum(bone, teeth)), _as_12_bits(bone)


def _as_12_bits(image: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    return np.round(np.clip(image, 0, 1) * _FULL_SCALE).astype(np.uint16)


def _draw_all(folder: Path, shape: tuple[int, int, int], progress: Progress | None) -> None:
    count, size, seed = shape
    for part in (WITH_TEETH, WITHOUT_TEETH):
        (folder / part).mkdir(parents=True)
    with gdal_settings(place=False):
        for number in range(count):
            name = f"image_{number + 1:04d}.tif"
            for part, image in zip((WITH_TEETH, WITHOUT_TEETH), draw_jaw(size, seed, number), strict=True):
                _write(folder / part / name, image)
            if progress is not None:
                progress(number + 1, count)


def _write(path: Path, image: npt.NDArray[Any]) -> None:
    height, width = image.shape
    kind = {"driver": "GTiff", "count": 1, "dtype": image.dtype.name, "compress": "lzw", "predictor": 2}
    with rasterio.open(path, "w", height=height, width=width, **kind) as file:
        file.write(image, 1)


__all__ = ["WITHOUT_TEETH", "WITH_TEETH", "draw_jaw", "tooth_images"]
