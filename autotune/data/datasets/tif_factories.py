"""Datasets of TIF images that study files name by dotted path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.data.datasets.drawn_once import Progress
from autotune.data.datasets.sample_teeth import WITH_TEETH, WITHOUT_TEETH, tooth_images
from autotune.data.datasets.tif_folders import matched_names, tif_files
from autotune.data.datasets.tif_images import TifImageDataset, TifPairDataset, checked_patch_size
from autotune.data.transforms.tif_augmentation import tif_augmentation
from autotune.home import home_folder


def vae_tif(
    root: str | None = None,
    *,
    data_source: str = WITHOUT_TEETH,
    patch_size: Sequence[int] = (256, 256),
    augment: bool = False,
    normalize_on: str = "loader",
    count: int = 300,
    size: int = 320,
    seed: int = 0,
    progress: Progress | None = None,
) -> TifImageDataset:
    """Give single images as `autotune.loaders.create_vae_dataloaders` trains on them.

    Args:
        root: Folder with the folder of images in it; None draws images once into `data` in autotune's home
            (`AUTOTUNE_HOME`).
        data_source: Folder of images, or `both` for `edente` and `dente`.
        patch_size: Height and width of every sample.
        augment: Whether samples are flipped, turned and shifted.
        normalize_on: Where images are normalised: `loader` or `device`; with `augment` the loader alone can.
        count: Number of drawn pairs.
        size: Side of drawn images in pixels.
        seed: Seed of drawing and augmentation.
        progress: Told how many pairs are drawn.
    """
    base = _base(root, count, size, seed, progress)
    sources = (WITHOUT_TEETH, WITH_TEETH) if data_source == "both" else (data_source,)
    paths = [path for source in sources for path in tif_files(base / source).values()]
    return TifImageDataset(
        paths,
        patch_size=patch_size,
        augmentation=_augmentation(patch_size, augment),
        normalize_on=normalize_on,
        seed=seed,
    )


def ldm_tif(
    root: str | None = None,
    *,
    target: str = WITHOUT_TEETH,
    condition: str = WITH_TEETH,
    patch_size: Sequence[int] = (256, 256),
    augment: bool = False,
    normalize_on: str = "loader",
    count: int = 300,
    size: int = 320,
    seed: int = 0,
    progress: Progress | None = None,
) -> TifPairDataset:
    """Give pairs of images as `autotune.loaders.create_ldm_dataloaders` trains on them.

    Args:
        root: Folder with both folders of images in it; None draws images once.
        target: Folder of the images that are learnt.
        condition: Folder of the images that they are learnt from.
        patch_size: Height and width of every image.
        augment: Whether pairs are flipped, turned and shifted, both images alike.
        normalize_on: Where images are normalised: `loader` or `device`; with `augment` the loader alone can.
        count: Number of drawn pairs.
        size: Side of drawn images in pixels.
        seed: Seed of drawing and augmentation.
        progress: Told how many pairs are drawn.
    """
    base = _base(root, count, size, seed, progress)
    targets, conditions = tif_files(base / target), tif_files(base / condition)
    names = matched_names(targets, conditions)
    return TifPairDataset(
        [targets[name] for name in names],
        [conditions[name] for name in names],
        patch_size=patch_size,
        augmentation=_augmentation(patch_size, augment),
        normalize_on=normalize_on,
        seed=seed,
    )


def _base(root: str | None, count: int, size: int, seed: int, progress: Progress | None) -> Path:  # noqa: PLR0917  # private
    if root is not None:
        return Path(root).expanduser()
    return tooth_images(home_folder() / "data", count=count, size=size, seed=seed, progress=progress)


def _augmentation(patch_size: Sequence[int], augment: bool) -> Any:
    return tif_augmentation(checked_patch_size(patch_size)) if augment else None


__all__ = ["ldm_tif", "vae_tif"]
