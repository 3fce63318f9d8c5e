"""Datasets and loaders of forest gaps in one call each."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from autotune.data.datasets.base import BaseDataset
from autotune.data.datasets.forest_gap import GAP_THRESHOLDS, ForestDataset, ForestGapDataset, HeightGapDataset
from autotune.data.datasets.raster_files import raster_size
from autotune.data.datasets.raster_statistics import NormalizationChoice, fitted
from autotune.data.facts import samples_equal
from autotune.data.stages import augment_generator, has_augment, leaves_of
from autotune.data.transforms.augmentation import ImageAugmentation
from autotune.errors import DatasetError, SampleError, SpecError
from autotune.loaders.splitting import check_disjoint, check_share, split_dataset, split_files
from autotune.resolve.best import best_loader

_LOG = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]
Paths = PathLike | Sequence[PathLike]
Loaders = tuple[DataLoader[Any], DataLoader[Any]]

_SEED_MAX = 2**64 - 1
"""The largest that torch takes."""
_DRAWS = 8
"""How often a transform is tried on a sample: one that changes every second sample is found but once in 128 times."""
_OF_ONE_PART = {
    "shuffle": "training is shuffled and validation is not",
    "drop_last": "it is an argument of its own, and of training alone",
    "sampler": "it orders the samples of one dataset",
    "batch_sampler": "it orders the samples of one dataset",
}
"""Arguments of a loader that cannot be those of training and validation both, and why."""


def create_dataset(
    input_paths: Paths,
    mask_paths: Paths | None = None,
    *,
    thresholds: float | Sequence[float] | None = None,
    normalization: NormalizationChoice = None,
    augmentation: Any = None,
    metadata: bool = False,
    **settings: Any,
) -> ForestGapDataset | HeightGapDataset:
    """Make a dataset of forest gaps: of images and masks, or of canopy heights alone.

    Args:
        input_paths: Images or canopy-height rasters, one or several.
        mask_paths: Masks, one for each image, in the same order; None finds gaps in the canopy heights.
        thresholds: Heights in metres under which a pixel is a gap, without masks; None is 5, 10, 15 and 20.
        normalization: Statistics, a kind that is fitted to these images (`min_max`, `z_score`, `robust`), or a JSON
            file of saved statistics; `dataset.normalization.save(path)` saves them.
        augmentation: Albumentations transform of image and mask, drawn anew in each pass over a loader that autotune
            makes; with torch's own the caller calls `set_epoch` of the dataset before each.
        metadata: Whether samples have a third part: path, coordinate system, transform, nodata, window.
        **settings: Further settings of `ForestGapDataset` or `HeightGapDataset`: `window`, `stride`, `fill`,
            `ignore_index`, `nodata_zero_is_invalid`, `seed`; with masks also `bands`, `nodata`, `dtype`, `size`.

    Raises:
        DatasetError: There is no image, or not one mask for each.
        SpecError: A setting breaks a rule, or statistics are for another number of bands.
        SampleError: A file cannot be read; carries its path.
    """
    inputs = _listed(input_paths)
    treatment: dict[str, Any] = {"normalization": normalization, "augmentation": augmentation, "metadata": metadata}
    if mask_paths is None:
        limits = GAP_THRESHOLDS if thresholds is None else thresholds
        return HeightGapDataset(inputs, thresholds=limits, **treatment, **settings)
    if thresholds is not None:
        raise SpecError(
            f"thresholds find gaps where there are no masks, got thresholds={thresholds!r} with masks; leave one out"
        )
    return ForestGapDataset(inputs, _listed(mask_paths), **treatment, **settings)


def create_dataloader(
    dataset: Dataset[Any],
    *,
    batch_size: int | None = None,
    shuffle: bool = False,
    num_workers: int | None = None,
    prefetch_factor: int | None = None,
    persistent_workers: bool | None = None,
    pin_memory: bool | None = None,
    drop_last: bool = False,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    seed: int | None = None,
    **settings: Any,
) -> DataLoader[Any]:
    """Give a loader over a dataset; None means what was measured best on this machine, else PyTorch's default.

    Args:
        dataset: A map-style or iterable dataset.
        batch_size: Samples in a batch; None is what a study with the training step measured, else 32.
        shuffle: Whether to shuffle.
        num_workers: Worker processes.
        prefetch_factor: Batches that each worker keeps ready.
        persistent_workers: Whether workers outlive an epoch; None keeps them.
        pin_memory: Whether batches are page-locked.
        drop_last: Whether an incomplete last batch is dropped.
        collate_fn: Makes a batch of a list of samples.
        seed: Seed of the order, instead of a `generator`; None draws one from torch's.
        **settings: Further arguments of `autotune.best_loader` (`cache`, `archive`, `study`, `home`, `sampler` ...).

    Raises:
        SpecError: Arguments contradict each other.
    """
    if seed is not None:
        if settings.get("generator") is not None:
            raise SpecError(f"seed makes the generator of the order, got seed={seed!r} beside a generator; give one")
        _check_seed(seed, least=-(2**63))
        settings["generator"] = torch.Generator().manual_seed(seed)
    if drop_last:
        settings["drop_last"] = True
    return best_loader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle,
        collate_fn=collate_fn,
        num_workers=num_workers,
        prefetch_factor=prefetch_factor,
        persistent_workers=persistent_workers,
        pin_memory=pin_memory,
        **settings,
    )


def create_train_val_datasets(
    source: Dataset[Any] | Paths,
    mask_paths: Paths | None = None,
    *,
    val_input_paths: Paths | None = None,
    val_mask_paths: Paths | None = None,
    val_split: float = 0.2,
    seed: int = 0,
    normalization: NormalizationChoice = None,
    augmentation: Any = None,
    **dataset_settings: Any,
) -> tuple[Dataset[Any], Dataset[Any]]:
    """Make the two datasets of `create_train_val_dataloaders`, which describes the arguments."""
    check_share(val_split)
    _check_seed(seed, least=0)
    if isinstance(source, Dataset):
        given = {"mask_paths": mask_paths, "val_input_paths": val_input_paths, "val_mask_paths": val_mask_paths}
        extra = [name for name, value in {**given, **dataset_settings}.items() if value is not None]
        if extra or augmentation is not None:
            named = ", ".join(extra or ["augmentation"])
            raise SpecError(f"a dataset has its own files and settings, got {named} beside one; give paths instead")
        return _divided(source, normalization, val_split=val_split, seed=seed)
    settings = {"seed": seed, **dataset_settings}
    inputs, masks = _listed(source), None if mask_paths is None else _listed(mask_paths)
    if val_input_paths is None and val_mask_paths is not None:
        raise SpecError("val_mask_paths belong to val_input_paths, got them alone; give both")
    if val_input_paths is not None and (mask_paths is None) != (val_mask_paths is None):
        masked, plain = ("val_mask_paths", "mask_paths") if mask_paths is None else ("mask_paths", "val_mask_paths")
        raise SpecError(
            f"both parts have masks or neither has, got {masked} and no {plain}: images would be taken for canopy "
            f"heights; give {plain} too"
        )
    if val_input_paths is None and len({os.path.realpath(path) for path in inputs}) == 1:
        whole = create_dataset(inputs, masks, augmentation=augmentation, **settings)
        return _divided(whole, normalization, val_split=val_split, seed=seed)
    if val_input_paths is None:
        _check_masks(inputs, masks)
        parts = split_files(inputs, val_split, seed)
        (train, train_masks), (val, val_masks) = ((_taken(inputs, part), _taken(masks, part)) for part in parts)
    else:
        train, train_masks = inputs, masks
        val, val_masks = _listed(val_input_paths), None if val_mask_paths is None else _listed(val_mask_paths)
        check_disjoint(train, val)
    if masks is None and settings.get("window") is None:
        settings["window"] = _largest_of([*train, *val])  # of both parts, so that batches have one shape
    training = create_dataset(train, train_masks, normalization=normalization, augmentation=augmentation, **settings)
    return training, create_dataset(val, val_masks, normalization=training.normalization, **settings)


def create_train_val_dataloaders(
    source: Dataset[Any] | Paths,
    mask_paths: Paths | None = None,
    *,
    val_input_paths: Paths | None = None,
    val_mask_paths: Paths | None = None,
    val_split: float = 0.2,
    seed: int = 0,
    normalization: NormalizationChoice = None,
    augmentation: Any = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    prefetch_factor: int | None = None,
    persistent_workers: bool | None = None,
    pin_memory: bool | None = None,
    drop_last: bool = False,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    loader_settings: dict[str, Any] | None = None,
    **dataset_settings: Any,
) -> Loaders:
    """Give the loaders of training and validation.

    No pixel is in both parts. Several rasters are divided as files, whatever windows are cut from them; the windows of
    a single raster are cut at a line, and those across it are left out; samples without files are drawn one by one.
    Two rasters of one place (of other years, say) are two files: keep them together by `val_input_paths`.
    Statistics are fitted to the training part and used for both. Training is shuffled and augmented, anew in each
    pass over its loader, validation is neither. The transforms of a general dataset (`ImageDataset` ...) turn samples
    into what batches are made of, so they stay in both parts and must not be random: else give each part a dataset
    and a loader of its own.

    Args:
        source: Paths of images or canopy heights, or a dataset.
        mask_paths: Masks, as `create_dataset` takes them.
        val_input_paths: Images that validate; None divides the others by `val_split`.
        val_mask_paths: Their masks.
        val_split: Share of the files that validates; of the windows, or of the samples, where that is divided.
        seed: Seed of the division, of the order and of the augmentation.
        normalization: As `create_dataset` takes it. With a dataset only for those of forest gaps.
        augmentation: Albumentations transform of the training part; a dataset brings its own.
        batch_size: Samples in a batch, of both loaders.
        num_workers: Worker processes of each loader.
        prefetch_factor: Batches that each worker keeps ready.
        persistent_workers: Whether workers outlive an epoch.
        pin_memory: Whether batches are page-locked.
        drop_last: Whether training drops an incomplete last batch; validation never does.
        collate_fn: Makes a batch of a list of samples.
        loader_settings: Further arguments of `autotune.best_loader`, for both.
        **dataset_settings: Further settings of `create_dataset` (`window`, `stride`, `thresholds`, `metadata` ...).

    Raises:
        DatasetError: There is too little to divide, or a file would be in both parts.
        SpecError: Arguments contradict each other, or the transform of a general dataset is random.
    """
    further = _for_both(loader_settings or {})
    training, validation = create_train_val_datasets(
        source,
        mask_paths,
        val_input_paths=val_input_paths,
        val_mask_paths=val_mask_paths,
        val_split=val_split,
        seed=seed,
        normalization=normalization,
        augmentation=augmentation,
        **dataset_settings,
    )
    both: dict[str, Any] = {
        "batch_size": batch_size,
        "num_workers": num_workers,
        "prefetch_factor": prefetch_factor,
        "persistent_workers": persistent_workers,
        "pin_memory": pin_memory,
        "collate_fn": collate_fn,
        "seed": None if further.get("generator") is not None else seed,
        **further,
    }
    train_loader = create_dataloader(training, shuffle=True, drop_last=drop_last, **both)
    return train_loader, create_dataloader(validation, shuffle=False, **both)


def _divided(
    dataset: Any, normalization: NormalizationChoice, *, val_split: float, seed: int
) -> tuple[Dataset[Any], Dataset[Any]]:
    """Divide a dataset, with statistics of its training part and without augmentation in the other."""
    if isinstance(dataset, IterableDataset):
        raise DatasetError(f"an iterable dataset cannot be divided, got {type(dataset).__qualname__}; make two of it")
    if normalization is not None and not isinstance(dataset, ForestDataset):
        raise SpecError(
            f"normalization is for datasets of forest gaps, got it beside {type(dataset).__qualname__}; "
            "let the dataset normalise its samples"
        )
    split = split_dataset(dataset, val_split, seed)
    _LOG.info("split by %s: %d samples train, %d validate", split.rule, len(split.train), len(split.validation))
    if normalization is not None:
        statistics = fitted(
            normalization,
            list(dict.fromkeys(dataset.path_of(index) for index in split.train)),
            bands=dataset.bands,
            nodata_zero_is_invalid=dataset.nodata_zero_is_invalid,
            box=_clipped(split.region, dataset.path_of(split.train[0])) if split.region else None,
        )
        dataset = dataset.with_normalization(statistics)
    return Subset(dataset, split.train), Subset(_unaugmented(dataset), split.validation)


def _unaugmented(dataset: Any) -> Any:
    """Give the dataset without its random part: itself where it has none that is told apart."""
    if isinstance(dataset, ForestDataset):
        return dataset.without_augmentation()
    leaves = leaves_of(dataset)
    for leaf in leaves:
        if isinstance(leaf, BaseDataset):
            _check_transforms(leaf)
    if not any(has_augment(leaf) for leaf in leaves if not isinstance(leaf, BaseDataset)):
        return dataset
    if leaves != [dataset]:
        raise SpecError(
            f"validation is not augmented, and the parts inside {type(dataset).__qualname__} are; "
            "divide each part, or make the two datasets yourself"
        )
    plain = copy.copy(dataset)
    plain.augment = None
    return plain


def _check_transforms(dataset: BaseDataset) -> None:
    """Refuse transforms that are random, as validation would be augmented by them."""
    if dataset.augments_samples and (isinstance(dataset.transform, ImageAugmentation) or _varies(dataset)):
        raise SpecError(
            f"validation is not augmented, and the transforms of {type(dataset).__qualname__} are random: what else "
            "they do is not told apart; make two datasets, the one that validates with transforms that are not, "
            "and a loader of each"
        )


def _varies(dataset: BaseDataset) -> bool:
    """Tell whether the transforms make something else of the first sample with other random numbers."""
    try:
        made = [
            dataset.augment(dataset.base_sample(0), augment_generator(dataset.seed, draw, 0)) for draw in range(_DRAWS)
        ]
    except (IndexError, SampleError):  # an empty part, or a broken file, which is told where it is read
        return False
    return not all(samples_equal(one, made[0]) for one in made)


def _for_both(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse arguments of a loader that are not for training and validation both."""
    for name, reason in _OF_ONE_PART.items():
        if settings.get(name) is not None:
            raise SpecError(
                f"loader_settings are for training and validation both, got {name}, and {reason}; "
                "leave it out, or make each loader by create_dataloader of what create_train_val_datasets gives"
            )
    return {name: value for name, value in settings.items() if name not in _OF_ONE_PART}


def _check_seed(seed: Any, *, least: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not least <= seed <= _SEED_MAX:
        raise SpecError(f"seed is a whole number from {least} to {_SEED_MAX}, got {seed!r}")


def _clipped(region: tuple[int, int, int, int], path: str) -> tuple[int, int, int, int]:
    """Cut a region off at the raster's edges, which windows may reach beyond."""
    height, width = raster_size(path)
    top, left, rows, columns = region
    return top, left, min(rows, height - top), min(columns, width - left)


def _check_masks(inputs: Sequence[str], masks: Sequence[str] | None) -> None:
    if masks is not None and len(masks) != len(inputs):
        raise DatasetError(f"each image needs one mask, got {len(inputs)} images and {len(masks)} masks")
    if not inputs:
        raise DatasetError("a dataset of forest gaps needs at least one image, got none")


def _taken(paths: Sequence[str] | None, places: Sequence[int]) -> Any:
    return None if paths is None else [paths[place] for place in places]


def _largest_of(paths: Sequence[str]) -> tuple[int, int]:
    sizes = [raster_size(path) for path in paths]
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def _listed(paths: Any) -> list[str]:
    """Give paths as a list, where one alone may be given too."""
    one = isinstance(paths, str | os.PathLike)
    return [os.fspath(path) for path in ([paths] if one else paths)]


__all__ = ["create_dataloader", "create_dataset", "create_train_val_dataloaders", "create_train_val_datasets"]
