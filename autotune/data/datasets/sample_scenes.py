"""Street scenes with label ids, drawn once by seed and laid out as Cityscapes is."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.data.datasets.cityscapes import IMAGE_FOLDER, IMAGE_SUFFIX, LABEL_FOLDER, LABEL_SUFFIX
from autotune.data.datasets.cityscapes_labels import LABELS
from autotune.data.datasets.drawn_once import Progress, drawn_once
from autotune.data.extras import needed
from autotune.errors import SpecError

Color = tuple[int, int, int]
Point = tuple[float, float]

_VERSION = 1
"""Part of the folder's name: raised when the drawing changes, so that old scenes are not taken for new ones."""
_CITY = "drawnburg"
_PER_SEQUENCE = 30
_SPLITS = ("train", "val")
_VAL_SHARE = 5
"""One scene for validation on so many for training."""
_IDS = {label.name: label.id for label in LABELS}
_GRAIN = 5
"""Standard deviation of the noise of the drawn camera, in steps of 8 bits."""


def street_scenes(
    root: Path,
    *,
    count: int = 120,
    size: tuple[int, int] = (512, 1024),
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Draw scenes into a folder, once, and give the folder.

    It holds `leftImg8bit` and `gtFine` with the splits `train` (`count` scenes) and `val` (a fifth of that). The folder
    appears only when it is complete; the same seed gives the same pixels. Two processes that ask at once draw it once.

    Args:
        root: Folder for generated data.
        count: Number of scenes for training.
        size: Height and width in pixels.
        seed: Seed of everything random.
        progress: Told how many scenes are there.

    Raises:
        SpecError: `count` is under 1 or a side under 32.
        MissingExtraError: Pillow is not installed.
    """
    if count < 1 or min(size) < 32:
        raise SpecError(f"scenes need count >= 1 and sides >= 32, got count={count} and size={size}")
    needed("PIL", "drawing street scenes")
    name = f"street_scenes-v{_VERSION}-{count}x{size[0]}x{size[1]}-seed{seed}"
    return drawn_once(root, name, lambda folder: _draw_all(folder, count, size, seed, progress))


def _draw_all(  # noqa: PLR0917  # one caller
    folder: Path, count: int, size: tuple[int, int], seed: int, progress: Progress | None
) -> None:
    image_of = importlib.import_module("PIL.Image").fromarray
    held_out = max(1, count // _VAL_SHARE)
    splits = ["train"] * count + ["val"] * held_out
    for kind in (IMAGE_FOLDER, LABEL_FOLDER):
        for split in _SPLITS:
            (folder / kind / split / _CITY).mkdir(parents=True)
    for number, split in enumerate(splits):
        pixels, ids = draw_scene(size, seed, number)
        name = f"{_CITY}_{number // _PER_SEQUENCE:06d}_{number:06d}"
        image_of(pixels).save(folder / IMAGE_FOLDER / split / _CITY / f"{name}{IMAGE_SUFFIX}", compress_level=4)
        image_of(ids).save(folder / LABEL_FOLDER / split / _CITY / f"{name}{LABEL_SUFFIX}")
        if progress is not None:
            progress(number + 1, len(splits))


def draw_scene(size: tuple[int, int], seed: int, number: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw one scene and its label ids.

    A street runs to the horizon between pavements and houses, with trees, poles, signs, vehicles and people, seen
    from a car whose bonnet shows.

    Args:
        size: Height and width.
        seed: Seed of the drawing.
        number: Number of the scene.

    Returns:
        Pixels, uint8 `(height, width, 3)`, and label ids, uint8 `(height, width)`.
    """
    generator = np.random.default_rng((seed, number))
    scene = _Canvas(size, generator)
    horizon = generator.uniform(0.40, 0.48)
    vanishing = generator.uniform(0.42, 0.58)
    scene.rectangle("sky", (0, 0, 1, horizon), (135, 175, 215))
    scene.rectangle("terrain", (0, horizon, 1, 1), (120, 135, 80))
    _draw_houses(scene, generator, horizon)
    _draw_trees(scene, generator, horizon)
    _draw_street(scene, horizon, vanishing)
    _draw_posts(scene, generator, horizon)
    _draw_traffic(scene, generator, horizon, vanishing)
    scene.ellipse("ego vehicle", (0.1, 0.93, 0.9, 1.15), (25, 25, 28))
    return scene.finished()


class _Canvas:
    """The picture and its label ids, drawn on together; places are shares of height and width."""

    def __init__(self, size: tuple[int, int], generator: np.random.Generator) -> None:
        images, draws = importlib.import_module("PIL.Image"), importlib.import_module("PIL.ImageDraw")
        self._height, self._width = size
        self._generator = generator
        self._picture = images.new("RGB", (self._width, self._height))
        self._ids = images.new("L", (self._width, self._height))
        self._on_picture, self._on_ids = draws.Draw(self._picture), draws.Draw(self._ids)
        self._images = images

    def rectangle(self, label: str | None, box: tuple[float, float, float, float], color: Color) -> None:
        """Draw from left, top, right, bottom; without a label only into the picture."""
        self._draw("rectangle", self._pixels(box), label, color)

    def ellipse(self, label: str | None, box: tuple[float, float, float, float], color: Color) -> None:
        """Draw inside left, top, right, bottom."""
        self._draw("ellipse", self._pixels(box), label, color)

    def polygon(self, label: str | None, corners: list[Point], color: Color) -> None:
        """Draw what the corners enclose."""
        self._draw("polygon", [self._pixel(*corner) for corner in corners], label, color)

    def finished(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Give both, the picture under uneven light and with the noise of a camera."""
        coarse = self._generator.normal(0.0, 12.0, (6, 10)).astype(np.float32)
        light = self._images.fromarray(coarse).resize((self._width, self._height), self._images.Resampling.BICUBIC)
        grain = self._generator.normal(0.0, _GRAIN, (self._height, self._width, 1))
        lit = np.asarray(self._picture, np.float32) + np.asarray(light)[:, :, None] + grain
        return lit.clip(0, 255).astype(np.uint8), np.array(self._ids)

    def _draw(self, shape: str, places: Any, label: str | None, color: Color) -> None:
        varied = self._generator.integers(-14, 15, 3)
        fill = tuple(int(np.clip(part + change, 0, 255)) for part, change in zip(color, varied, strict=True))
        getattr(self._on_picture, shape)(places, fill=fill)
        if label is not None:
            getattr(self._on_ids, shape)(places, fill=_IDS[label])

    def _pixels(self, box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
        (left, top), (right, bottom) = self._pixel(box[0], box[1]), self._pixel(box[2], box[3])
        return left, top, max(left, right), max(top, bottom)

    def _pixel(self, x: float, y: float) -> tuple[int, int]:
        return round(x * self._width), round(y * self._height)


def _draw_houses(scene: _Canvas, generator: np.random.Generator, horizon: float) -> None:
    left = -0.02
    while left < 1.0:
        width = generator.uniform(0.07, 0.16)
        aside = abs(left + width / 2 - 0.5) * 2  # the street lets the sky be seen
        top = horizon * (1.0 - aside * generator.uniform(0.5, 0.95))
        color = (int(generator.integers(90, 190)), int(generator.integers(80, 160)), int(generator.integers(70, 150)))
        scene.rectangle("building", (left, top, left + width, horizon + 0.05), color)
        for x in np.arange(left + 0.01, left + width - 0.012, 0.022):
            for y in np.arange(top + 0.02, horizon - 0.02, 0.05):
                scene.rectangle(None, (x, y, x + 0.01, y + 0.025), (50, 60, 80))
        left += width


def _draw_trees(scene: _Canvas, generator: np.random.Generator, horizon: float) -> None:
    for _ in range(int(generator.integers(3, 8))):
        side = generator.choice([generator.uniform(0.0, 0.32), generator.uniform(0.68, 1.0)])
        radius = generator.uniform(0.03, 0.08)
        for _ in range(6):
            x, y = side + generator.normal(0, radius / 2), horizon - radius + generator.normal(0, radius / 2)
            scene.ellipse("vegetation", (x - radius, y - radius, x + radius, y + radius), (70, 110, 50))


def _draw_street(scene: _Canvas, horizon: float, vanishing: float) -> None:
    near, far = (-0.25, 1.25), (vanishing - 0.03, vanishing + 0.03)
    scene.polygon("road", [(far[0], horizon), (far[1], horizon), (near[1], 1), (near[0], 1)], (95, 95, 100))
    for side, outward in ((0, -1), (1, 1)):
        corners = [
            (far[side], horizon),
            (near[side], 1),
            (near[side] + outward, 1),
            (far[side] + outward * 0.12, horizon),
        ]
        scene.polygon("sidewalk", corners, (150, 145, 145))
    for mark in range(6):
        top = horizon + (1 - horizon) * (mark / 6) ** 1.7
        bottom = horizon + (1 - horizon) * ((mark + 0.5) / 6) ** 1.7
        x_top, x_bottom = (vanishing + (0.5 - vanishing) * (y - horizon) / (1 - horizon) for y in (top, bottom))
        wide = 0.002 + 0.012 * mark / 6
        corners = [(x_top - wide, top), (x_top + wide, top), (x_bottom + wide, bottom), (x_bottom - wide, bottom)]
        scene.polygon(None, corners, (225, 225, 220))


def _draw_posts(scene: _Canvas, generator: np.random.Generator, horizon: float) -> None:
    for number in range(int(generator.integers(2, 6))):
        x = float(generator.choice([generator.uniform(0.05, 0.3), generator.uniform(0.7, 0.95)]))
        top, foot = horizon - generator.uniform(0.12, 0.3), horizon + generator.uniform(0.06, 0.2)
        scene.rectangle("pole", (x - 0.003, top, x + 0.003, foot), (120, 120, 120))
        if number % 2:
            scene.ellipse("traffic sign", (x - 0.016, top, x + 0.016, top + 0.06), (200, 60, 50))
        else:
            scene.rectangle("traffic light", (x - 0.01, top, x + 0.01, top + 0.08), (40, 45, 40))


def _draw_traffic(scene: _Canvas, generator: np.random.Generator, horizon: float, vanishing: float) -> None:
    """Draw vehicles and people from far to near."""
    distances = np.sort(generator.uniform(0.03, 0.5, int(generator.integers(4, 9))))
    for number, nearness in enumerate(distances):
        foot = horizon + nearness
        x = float(np.clip(vanishing + generator.normal(0, 0.1 + 0.5 * nearness), 0.05, 0.95))
        if number % 3 == 1:
            _draw_person(scene, generator, x, foot, 0.35 * nearness + 0.05)
        else:
            _draw_vehicle(scene, generator, x, foot, 0.35 * nearness + 0.03)


def _draw_person(  # noqa: PLR0917  # a figure and its place
    scene: _Canvas, generator: np.random.Generator, x: float, foot: float, height: float
) -> None:
    color = (int(generator.integers(30, 200)), int(generator.integers(30, 160)), int(generator.integers(30, 200)))
    scene.rectangle("person", (x - height / 9, foot - height * 0.8, x + height / 9, foot), color)
    scene.ellipse("person", (x - height / 14, foot - height, x + height / 14, foot - height * 0.78), (200, 160, 130))


def _draw_vehicle(  # noqa: PLR0917  # a figure and its place
    scene: _Canvas, generator: np.random.Generator, x: float, foot: float, height: float
) -> None:
    label = str(generator.choice(["car", "car", "car", "bus", "truck"]))
    color = (int(generator.integers(20, 230)), int(generator.integers(20, 200)), int(generator.integers(20, 230)))
    tall = height * (1.0 if label == "car" else 2.0)
    scene.rectangle(label, (x - height * 0.6, foot - tall * 0.6, x + height * 0.6, foot - height * 0.08), color)
    scene.polygon(
        label,
        [
            (x - height * 0.42, foot - tall),
            (x + height * 0.42, foot - tall),
            (x + height * 0.55, foot - tall * 0.55),
            (x - height * 0.55, foot - tall * 0.55),
        ],
        color,
    )
    scene.rectangle(None, (x - height * 0.4, foot - tall * 0.92, x + height * 0.4, foot - tall * 0.62), (60, 75, 90))
    for wheel in (x - height * 0.45, x + height * 0.28):
        scene.rectangle(label, (wheel, foot - height * 0.16, wheel + height * 0.17, foot), (20, 20, 20))


__all__ = ["draw_scene", "street_scenes"]
