"""Loaders of grey TIF images for training a VAE, and of pairs of them for latent diffusion."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.data.datasets.tif_folders import check_train_split, matched_names, split_names, tif_files
from autotune.data.datasets.tif_images import TifImageDataset, TifPairDataset, checked_patch_size
from autotune.data.transforms.tif_augmentation import tif_augmentation
from autotune.errors import DatasetError, SpecError
from autotune.loaders.tif_serving import Loaders, Serving, serve, settled_seed
from autotune.loaders.tif_statistics import log_statistics

BOTH = ("edente", "dente")
"""The folders that `data_source="both"` stands for."""

PathLike = str | os.PathLike[str]
_Row = tuple[Path, ...]
"""The files of one sample."""
_Rows = Mapping[str, Sequence[_Row]]
"""Samples of each name; a name is on one side of a split with all of them."""


def create_vae_dataloaders(
    data_base_dir: PathLike,
    batch_size: int,
    patch_size: Sequence[int],
    *,
    augment: bool = False,
    rank: int = 0,
    data_source: str = "edente",
    val_dir: PathLike | None = None,
    train_split: float = 0.9,
    num_workers: int | None = 4,
    seed: int | None = 42,
    subset_size: int | None = None,
    cache_rate: float | None = 0.0,
    distributed: bool = False,
    world_size: int = 1,
    augmentation: Any = None,
) -> Loaders:
    """Give loaders of single images for training and validation; batches are float32 `(B, 1, H, W)`.

    Images are those of `TifImageDataset`: loaded, grey, resized to `patch_size` always, normalised by what is not
    background, and augmented in training where that is asked for, anew in every epoch. Training is shuffled by
    seed, another way each epoch; validation keeps the order of the names and is never augmented.

    Args:
        data_base_dir: Folder with the folder of images in it.
        batch_size: Images in a batch.
        patch_size: Height and width of every image.
        augment: Whether training images are flipped, turned and shifted.
        rank: Number of this process; the first one logs statistics of the data.
        data_source: Folder of images, or `both` for `edente` and `dente` mixed, where the two images of a name are
            on one side of the split.
        val_dir: Folder for validation, with the same folders in it or the images themselves; all of
            `data_base_dir` trains then, and `train_split` counts for nothing.
        train_split: Share of the names that train.
        num_workers: Worker processes of each loader; None takes what was measured best for this data here
            (`autotune tune`), from plain files. For archives, give a `TifImageDataset` to `autotune.best_loader`.
        seed: Seed of split, order and augmentation; None draws one.
        subset_size: Only so many images, the first by name, before they are split (of each folder, with `val_dir`).
        cache_rate: Share of the training images kept in memory once they were read, before they are augmented.
            Above 0, validation is kept whole. None takes what was measured best.
        distributed: Whether samples are divided among processes, by a sampler with `set_epoch`; the last
            processes get a sample twice where they cannot be divided evenly.
        world_size: Number of processes.
        augmentation: A transform of Albumentations in place of the default one, with `augment=True`.

    Raises:
        SpecError: An argument breaks its rule.
        DatasetError: A folder is missing or empty, or cannot be split.
        CapacityError: What is to be cached does not fit.
        MissingExtraError: `augment` needs Albumentations, and it is not installed.
    """
    asked = _Asked(
        base=data_base_dir, val_dir=val_dir, patch_size=patch_size, augment=augment, augmentation=augmentation,
        train_split=train_split, subset_size=subset_size, batch_size=batch_size, num_workers=num_workers,
        cache_rate=cache_rate, seed=seed, distributed=distributed, rank=rank, world_size=world_size,
    )  # fmt: skip
    return asked.loaders(
        TifImageDataset,
        lambda folder: _source_rows(folder, data_source),
        lambda folder: _validation_rows(folder, data_source),
        source="both (edente + dente)" if data_source == "both" else data_source,
    )


def create_ldm_dataloaders(
    data_base_dir: PathLike,
    batch_size: int,
    patch_size: Sequence[int],
    *,
    augment: bool = False,
    rank: int = 0,
    target: str = "edente",
    condition: str = "dente",
    val_dir: PathLike | None = None,
    train_split: float = 0.9,
    num_workers: int | None = 4,
    seed: int | None = 42,
    subset_size: int | None = None,
    cache_rate: float | None = 0.0,
    distributed: bool = False,
    world_size: int = 1,
    augmentation: Any = None,
) -> Loaders:
    """Give loaders of pairs for training and validation; batches are `(target, condition)`, each `(B, 1, H, W)`.

    Both images of a pair are treated as those of `create_vae_dataloaders`, and augmented alike. Files belong together
    by name; those of a pair may differ in size, as both are resized. With equal names and seed, the split is that of
    `create_vae_dataloaders`, so what one validates on the other was not trained on.

    Args:
        data_base_dir: Folder with both folders of images in it.
        batch_size: Pairs in a batch.
        patch_size: Height and width of every image.
        augment: Whether training pairs are flipped, turned and shifted.
        rank: Number of this process; the first one logs statistics of the data.
        target: Folder of the images that are learnt.
        condition: Folder of the images that they are learnt from.
        val_dir: Folder for validation, with both folders in it; all of `data_base_dir` trains then.
        train_split: Share of the pairs that train.
        num_workers: As `create_vae_dataloaders` takes it, like all that follow.
        seed: Seed of split, order and augmentation.
        subset_size: Only so many pairs, the first by name.
        cache_rate: Share of the training pairs kept in memory.
        distributed: Whether pairs are divided among processes.
        world_size: Number of processes.
        augmentation: A transform of Albumentations in place of the default one, given `image` (the target) and
            `condition`.

    Raises:
        SpecError: An argument breaks its rule.
        DatasetError: A folder is missing or empty, cannot be split, or names do not match; the files without a
            counterpart are named.
        CapacityError: What is to be cached does not fit.
        MissingExtraError: `augment` needs Albumentations, and it is not installed.
    """
    asked = _Asked(
        base=data_base_dir, val_dir=val_dir, patch_size=patch_size, augment=augment, augmentation=augmentation,
        train_split=train_split, subset_size=subset_size, batch_size=batch_size, num_workers=num_workers,
        cache_rate=cache_rate, seed=seed, distributed=distributed, rank=rank, world_size=world_size,
    )  # fmt: skip
    if target == condition:
        raise SpecError(f"target and condition are two folders, got {target!r} for both")

    def pairs(folder: Path) -> _Rows:
        return _pair_rows(folder, target, condition)

    return asked.loaders(TifPairDataset, pairs, pairs, source=f"{target} (target), {condition} (condition)")


class _Asked:
    """What both forms of loaders are asked for alike, checked before any folder is read.

    The arguments are those of `create_vae_dataloaders`; `base` is its `data_base_dir`.
    """

    def __init__(
        self,
        *,
        base: PathLike,
        val_dir: PathLike | None,
        patch_size: Sequence[int],
        augment: bool,
        augmentation: Any,
        train_split: float,
        subset_size: int | None,
        seed: int | None,
        distributed: bool,
        **serving: Any,
    ) -> None:
        self._seed = settled_seed(seed, distributed=distributed)
        self._serving = Serving(seed=self._seed, distributed=distributed, **serving)
        self._division = _Division(train_split=train_split, subset_size=subset_size, seed=self._seed)
        self._size = checked_patch_size(patch_size)
        self._augmentation = _augmentation(self._size, augment, augmentation)
        self._base = Path(base).expanduser()
        self._external = None if val_dir is None else Path(val_dir).expanduser()

    def loaders(
        self,
        dataset: Callable[..., TifImageDataset],
        rows: Callable[[Path], _Rows],
        val_rows: Callable[[Path], _Rows],
        *,
        source: str,
    ) -> Loaders:
        """Give the loaders of training and validation.

        Args:
            dataset: Class of the samples, which takes the files of each part of a sample.
            rows: Gives the samples in the folder of the data.
            val_rows: Gives those in the folder for validation, where there is one.
            source: What the statistics call the data.
        """
        train_rows, val_rows_found = self._division.divide(
            rows(self._base), None if self._external is None else val_rows(self._external)
        )
        train = dataset(
            *zip(*train_rows, strict=True), patch_size=self._size, augmentation=self._augmentation, seed=self._seed
        )
        val = dataset(*zip(*val_rows_found, strict=True), patch_size=self._size)
        loaders = serve(train, val, self._serving)
        log_statistics(train, val, source, rank=self._serving.rank)
        return loaders


@dataclass(frozen=True, kw_only=True)
class _Division:
    """How samples become those of training and of validation.

    Attributes:
        train_split: Share of the names that train.
        subset_size: Most samples, the first by name.
        seed: Seed of the choice.
    """

    train_split: float
    subset_size: int | None
    seed: int

    def __post_init__(self) -> None:
        check_train_split(self.train_split)
        if self.subset_size is not None and (type(self.subset_size) is not int or self.subset_size < 1):
            raise SpecError(f"subset_size must be at least 1, got {self.subset_size!r}; None takes everything")

    def divide(self, rows: _Rows, val_rows: _Rows | None) -> tuple[list[_Row], list[_Row]]:
        """Split the samples by name, or take all for training where validation comes from elsewhere."""
        first = self._first(rows)
        if val_rows is not None:
            train, val = [row for _, row in first], [row for _, row in self._first(val_rows)]
            _refuse_overlap(train, val)
            return train, val
        train_names, _ = split_names(list(dict.fromkeys(name for name, _ in first)), self.train_split, self.seed)
        chosen = set(train_names)
        return [row for name, row in first if name in chosen], [row for name, row in first if name not in chosen]

    def _first(self, rows: _Rows) -> list[tuple[str, _Row]]:
        return [(name, row) for name, its_rows in rows.items() for row in its_rows][: self.subset_size]


def _source_rows(base: Path, data_source: str) -> _Rows:
    found = [tif_files(base / source) for source in (BOTH if data_source == "both" else (data_source,))]
    names = sorted({name for files in found for name in files})
    return {name: [(files[name],) for files in found if name in files] for name in names}


def _validation_rows(folder: Path, data_source: str) -> _Rows:
    """Take the folders of the source, or the images in the folder itself where it holds none of them."""
    sources = BOTH if data_source == "both" else (data_source,)
    if not folder.is_dir() or any((folder / source).is_dir() for source in sources):
        return _source_rows(folder, data_source)
    return {name: [(path,)] for name, path in tif_files(folder).items()}


def _pair_rows(base: Path, target: str, condition: str) -> _Rows:
    targets, conditions = tif_files(base / target), tif_files(base / condition)
    return {name: [(targets[name], conditions[name])] for name in matched_names(targets, conditions)}


def _refuse_overlap(train: Sequence[_Row], val: Sequence[_Row]) -> None:
    shared = {path.resolve() for row in train for path in row} & {path.resolve() for row in val for path in row}
    if shared:
        raise DatasetError(
            f"validation takes other files than training, and {len(shared)} are in both, as {min(shared)}; "
            "give another val_dir, or leave it None to split off a share"
        )


def _augmentation(size: tuple[int, int], augment: bool, augmentation: Any) -> Any:
    if augmentation is not None and not augment:
        raise SpecError("an augmentation is applied with augment=True alone, got augment=False")
    if not augment:
        return None
    return tif_augmentation(size) if augmentation is None else augmentation


__all__ = ["BOTH", "create_ldm_dataloaders", "create_vae_dataloaders"]
