"""Images, texts and HDF5 rows that study files name by dotted path: generated data, or real data by one setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.data.datasets.drawn_once import Progress
from autotune.data.datasets.general_images import ImageDataset
from autotune.data.datasets.hdf5_arrays import HDF5Dataset
from autotune.data.datasets.sample_files import hdf5_features, photographs, text_lines
from autotune.data.datasets.texts import TextDataset
from autotune.data.datasets.windows import Size
from autotune.home import home_folder


def images(
    root: str | None = None,
    *,
    folder: str | None = None,
    count: int = 400,
    seed: int = 0,
    image_size: Size = (224, 224),
    progress: Progress | None = None,
    **settings: Any,
) -> ImageDataset:
    """Give photographs, normalised at one size, with their class: generated ones, drawn once into the data folder.

    Args:
        root: Folder for generated data; None is `data` in autotune's home (`AUTOTUNE_HOME`).
        folder: Folder of real images to take instead, relative to the current one.
        count: Number of generated images.
        seed: Seed of the drawing.
        image_size: Height and width that every image is resized to.
        progress: Told how many images are drawn.
        **settings: Further settings of `ImageDataset`.
    """
    path = Path(folder) if folder is not None else photographs(_root(root), count=count, seed=seed, progress=progress)
    size = image_size if isinstance(image_size, int) else (int(image_size[0]), int(image_size[1]))
    return ImageDataset(path, size, **{"cache_size": 0, **settings})


def text(
    root: str | None = None,
    *,
    path: str | None = None,
    count: int = 20_000,
    seed: int = 0,
    max_length: int = 512,
    progress: Progress | None = None,
    **settings: Any,
) -> TextDataset:
    """Give lines of text as ids of their characters: generated ones, drawn once into the data folder.

    Args:
        root: Folder for generated data; None is `data` in autotune's home (`AUTOTUNE_HOME`).
        path: File of lines, or folder of files, to take instead, relative to the current one.
        count: Number of generated lines.
        seed: Seed of the drawing.
        max_length: Most ids of a text.
        progress: Told how many lines are drawn.
        **settings: Further settings of `TextDataset`.
    """
    found = Path(path) if path is not None else text_lines(_root(root), count=count, seed=seed, progress=progress)
    return TextDataset(found, settings.pop("tokenizer", None), max_length, **settings)


def hdf5(
    root: str | None = None,
    *,
    path: str | None = None,
    count: int = 4000,
    seed: int = 0,
    dataset_name: str | Sequence[str] = "features",
    target_name: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> HDF5Dataset:
    """Give rows of an HDF5 file: of a generated one with labels, drawn once into the data folder.

    Args:
        root: Folder for generated data; None is `data` in autotune's home (`AUTOTUNE_HOME`).
        path: File to take instead, relative to the current folder.
        count: Number of generated rows.
        seed: Seed of the drawing.
        dataset_name: Name of the dataset, or several.
        target_name: Name of the dataset of targets; None is `labels` of generated data, and none of other files.
        progress: Told how many rows are drawn.
        **settings: Further settings of `HDF5Dataset`.
    """
    if path is not None:
        return HDF5Dataset(path, dataset_name, target_name, **settings)
    drawn = hdf5_features(_root(root), count=count, seed=seed, progress=progress)
    return HDF5Dataset(drawn, dataset_name, target_name or "labels", **settings)


def _root(root: str | None) -> Path:
    return home_folder() / "data" if root is None else Path(root).expanduser()


__all__ = ["hdf5", "images", "text"]
