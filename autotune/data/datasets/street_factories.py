"""Street scenes that study files name by dotted path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from autotune.data.datasets.cityscapes import CityscapesDataset
from autotune.data.datasets.sample_scenes import street_scenes
from autotune.data.datasets.windows import as_size
from autotune.home import home_folder


def cityscapes(
    root: str | None = None,
    split: str = "train",
    *,
    count: int = 120,
    scene_size: int | Sequence[int] = (512, 1024),
    scene_seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> CityscapesDataset:
    """Give street scenes with the categories of their pixels: those in a folder, or scenes that are drawn once.

    Args:
        root: Folder that holds `leftImg8bit` and `gtFine`; None draws scenes into the data folder in autotune's home
            (`AUTOTUNE_HOME`).
        split: `train` or `val`.
        count: Number of scenes that are drawn for training; there is one for validation on five of them.
        scene_size: Height and width that scenes are drawn in.
        scene_seed: Seed of the drawing.
        progress: Told how many scenes are drawn.
        **settings: Further settings of `CityscapesDataset`.
    """
    folder = root
    if folder is None:
        drawn = street_scenes(
            home_folder() / "data",
            count=count,
            size=as_size(scene_size if isinstance(scene_size, int) else (scene_size[0], scene_size[1]), "scene_size"),
            seed=scene_seed,
            progress=progress,
        )
        folder = str(drawn)
    return CityscapesDataset(folder, split, **settings)


__all__ = ["cityscapes"]
