"""Photographs, lines of text and an HDF5 file, drawn once by seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.data.datasets.drawn_once import Progress, drawn_once
from autotune.data.extras import needed
from autotune.errors import SpecError

CLASSES = ("bark", "leaf", "moss", "soil")
_VERSION = 1
"""Part of the folder's name: raised when the drawing changes, so that old files are not taken for new ones."""
_COLOURS = {"bark": (110, 85, 60), "leaf": (70, 130, 50), "moss": (120, 140, 60), "soil": (90, 70, 55)}
_SIDES = (180, 500)
"""Smallest and largest side of a photograph, in pixels."""
_QUALITY = 85
_WORDS = 4000
_SYLLABLES = "ba cor den el fi gra hum il ka lo mer no or pi qua ris su ta um ve"
_LINE_WORDS = (3, 90)
_CHUNK_ROWS = 32
FEATURES = (64, 64)
"""Shape of one row of features."""
TEXT_NAME, HDF5_NAME = "lines.txt", "features.h5"


def photographs(root: Path, *, count: int = 400, seed: int = 0, progress: Progress | None = None) -> Path:
    """Draw JPEG files of varying size into class folders, once, and give the folder above them."""
    name = f"photographs-v{_VERSION}-{count}-seed{seed}"
    return _drawn_once(root, name, count, lambda folder: _draw_photographs(folder, count, seed, progress))


def text_lines(root: Path, *, count: int = 20_000, seed: int = 0, progress: Progress | None = None) -> Path:
    """Draw a file of lines of words, common and rare ones as in a language, once, and give the file."""
    name = f"text-v{_VERSION}-{count}-seed{seed}"
    return _drawn_once(root, name, count, lambda folder: _draw_lines(folder, count, seed, progress)) / TEXT_NAME


def hdf5_features(root: Path, *, count: int = 4000, seed: int = 0, progress: Progress | None = None) -> Path:
    """Draw an HDF5 file, once, and give it: `features` float32 `(count, 64, 64)` in gzip, and `labels` int64."""
    name = f"hdf5-v{_VERSION}-{count}-seed{seed}"
    return _drawn_once(root, name, count, lambda folder: _draw_features(folder, count, seed, progress)) / HDF5_NAME


def _drawn_once(root: Path, name: str, count: int, draw: Callable[[Path], None]) -> Path:
    if count < 1:
        raise SpecError(f"generated data needs count >= 1, got {count}")
    return drawn_once(root, name, draw)


def draw_photograph(name: str, seed: int, number: int) -> npt.NDArray[np.uint8]:
    """Draw the pixels `(H, W, 3)` of one photograph: patches, fine grain and light from one side."""
    generator = np.random.default_rng((seed, number))
    height, width = generator.integers(_SIDES[0], _SIDES[1], 2).tolist()
    pixels = np.array(_COLOURS[name], dtype=np.float32) + np.zeros((height, width, 1), dtype=np.float32)
    for cells, strength in ((6, 40.0), (24, 22.0), (90, 12.0)):
        pixels += strength * _smooth(generator, cells, (height, width))
    pixels += 6.0 * generator.standard_normal((height, width, 1), dtype=np.float32)
    pixels *= np.linspace(0.75, 1.25, width, dtype=np.float32)[None, :, None]
    return pixels.clip(0, 255).astype(np.uint8)


def _smooth(generator: np.random.Generator, cells: int, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    coarse = generator.standard_normal((cells, cells, 3), dtype=np.float32)
    places = [np.linspace(0, cells - 1.001, side) for side in size]
    (rows, columns), (y, x) = ([p.astype(int) for p in places], [(p % 1).astype(np.float32) for p in places])
    y, x = y[:, None, None], x[None, :, None]
    upper = coarse[rows][:, columns] * (1 - x) + coarse[rows][:, columns + 1] * x
    lower = coarse[rows + 1][:, columns] * (1 - x) + coarse[rows + 1][:, columns + 1] * x
    mixed: npt.NDArray[np.float32] = upper * (1 - y) + lower * y
    return mixed


def _draw_photographs(folder: Path, count: int, seed: int, progress: Progress | None) -> None:
    needed("PIL", "drawing photographs")
    from PIL import Image

    for name in CLASSES:
        (folder / name).mkdir()
    for number in range(count):
        name = CLASSES[number % len(CLASSES)]
        image = Image.fromarray(draw_photograph(name, seed, number))
        image.save(folder / name / f"{number:05d}.jpg", quality=_QUALITY)
        _tell(progress, number + 1, count)


def _draw_lines(folder: Path, count: int, seed: int, progress: Progress | None) -> None:
    generator = np.random.default_rng((seed, 1))
    syllables = _SYLLABLES.split()
    words = ["".join(generator.choice(syllables, generator.integers(1, 5))) for _ in range(_WORDS)]
    weights = 1 / np.arange(1, _WORDS + 1)
    with (folder / TEXT_NAME).open("w", encoding="utf-8") as file:
        for number in range(count):
            length = int(generator.integers(*_LINE_WORDS))
            chosen = generator.choice(_WORDS, length, p=weights / weights.sum())
            file.write(" ".join(words[place] for place in chosen).capitalize() + ".\n")
            _tell(progress, number + 1, count)


def _draw_features(folder: Path, count: int, seed: int, progress: Progress | None) -> None:
    h5py = needed("h5py", "drawing an HDF5 file")
    with h5py.File(folder / HDF5_NAME, "w") as file:
        rows = min(_CHUNK_ROWS, count)
        features = file.create_dataset(
            "features", (count, *FEATURES), "float32", chunks=(rows, *FEATURES), compression="gzip", shuffle=True
        )
        labels = np.random.default_rng((seed, 2)).integers(0, 10, count)
        file.create_dataset("labels", data=labels)
        for first in range(0, count, rows):
            some = [_draw_row(seed, number, int(labels[number])) for number in range(first, min(count, first + rows))]
            features[first : first + len(some)] = np.stack(some)
            _tell(progress, first + len(some), count)


def _draw_row(seed: int, number: int, label: int) -> npt.NDArray[Any]:
    generator = np.random.default_rng((seed, 3, number))
    waves = np.sin(np.linspace(0, (label + 1) * np.pi, FEATURES[0]))[:, None] * np.linspace(0, 1, FEATURES[1])
    return np.round(waves + 0.1 * generator.standard_normal(FEATURES), 2).astype(np.float32)


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


__all__ = ["hdf5_features", "photographs", "text_lines"]
