"""Parts of a dataset for training and validation that share no pixel."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.data.archives._base import sized
from autotune.data.datasets.forest_gap import ForestDataset
from autotune.data.datasets.raster_files import Box
from autotune.data.stages import locate
from autotune.errors import DatasetError, SpecError

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which samples train and which validate.

    Attributes:
        train: Indices of the training part, in order.
        validation: Indices of the other part.
        rule: How they were told apart: `file`, `region` of the one raster, or `sample`.
        region: Part of the one raster that holds every training window; None for the other rules.
    """

    train: list[int]
    validation: list[int]
    rule: str
    region: Box | None = None


def check_share(val_split: float) -> None:
    """Refuse a share that leaves one part empty.

    Raises:
        SpecError: It is not between 0 and 1.
    """
    if not 0 < val_split < 1:
        raise SpecError(f"val_split is a share between 0 and 1, got {val_split!r}; write 0.2")


def split_files(paths: Sequence[str | os.PathLike[str]], val_split: float, seed: int) -> tuple[list[int], list[int]]:
    """Choose the files that validate, and give the places of both parts in the list.

    A file that stands in the list twice, under two names too, is in one part alone.

    Raises:
        SpecError: The share is none.
        DatasetError: There is only one file.
    """
    check_share(val_split)
    names = [os.path.realpath(path) for path in paths]
    unique = list(dict.fromkeys(names))
    if len(unique) < 2:
        raise DatasetError(f"a split by files needs at least two of them, got {len(unique)}")
    chosen = {unique[place] for place in _drawn(len(unique), val_split, seed)}
    train = [place for place, name in enumerate(names) if name not in chosen]
    return train, [place for place, name in enumerate(names) if name in chosen]


def split_dataset(dataset: Any, val_split: float, seed: int) -> Split:
    """Divide the samples of a map-style dataset.

    Samples of one file stay together wherever the dataset tells files (`path_of`) and there are several. Windows of
    one raster are cut at a line: validation takes one end, and windows across the line are left out. Samples
    that tell nothing are drawn one by one.

    Args:
        dataset: The dataset.
        val_split: Share of files, of the one raster's windows, or of samples that validate.
        seed: Seed of the choice.

    Raises:
        SpecError: The share is none.
        DatasetError: There is too little to divide, or the dataset has no length.
    """
    check_share(val_split)
    count = sized(dataset)
    if count < 2:
        raise DatasetError(f"a split needs at least two samples, got {count}; cut windows, or give both parts")
    files = _files_of(dataset, count)
    if files is not None and len(set(files)) > 1:
        train, validation = split_files(files, val_split, seed)
        return Split(train=train, validation=validation, rule="file")
    windows = dataset.window_origins() if isinstance(dataset, ForestDataset) else None
    if windows is not None:
        return _split_region(windows[:, 1:], dataset.window_size, val_split, seed=seed)
    drawn = set(_drawn(count, val_split, seed))
    return Split(train=[place for place in range(count) if place not in drawn], validation=sorted(drawn), rule="sample")


def check_disjoint(train: Sequence[str | os.PathLike[str]], validation: Sequence[str | os.PathLike[str]]) -> None:
    """Refuse files that would train and validate.

    Raises:
        DatasetError: Some file is in both; the message names it.
    """
    named: Mapping[str, str] = {os.path.realpath(path): os.fspath(path) for path in train}
    both = [os.fspath(path) for path in validation if os.path.realpath(path) in named]
    if both:
        shown = ", ".join(both[:5]) + (" ..." if len(both) > 5 else "")
        raise DatasetError(f"no file may train and validate, got {len(both)} in both: {shown}")


def _files_of(dataset: Any, count: int) -> list[str] | None:
    """Give the file behind each sample; None where one has none."""
    known: dict[str, str] = {}
    found = []
    for index in range(count):
        leaf, place = locate(dataset, index)
        path_of = getattr(leaf, "path_of", None)
        if path_of is None:
            return None
        path = str(path_of(place))
        if path not in known:
            known[path] = os.path.realpath(path)
        found.append(known[path])
    return found


def _split_region(origins: Numbers, window: tuple[int, int], val_split: float, *, seed: int) -> Split:
    """Cut the windows of one raster across its longer side; the seed says which end validates."""
    axis = int(np.argmax(origins.max(axis=0)))
    starts, side = origins[:, axis], window[axis]
    last = bool(np.random.default_rng(seed).integers(2))
    wanted = val_split * len(starts)
    best: tuple[float, Numbers, Numbers] | None = None
    for line in np.unique(starts).tolist():
        within = starts >= line if last else starts <= line
        validation = np.flatnonzero(within)
        train = np.flatnonzero(starts + side <= line if last else starts >= line + side)
        distance = abs(len(validation) - wanted)
        if len(train) and (best is None or distance < best[0]):
            best = distance, train, validation
    if best is None:
        raise DatasetError(
            f"windows of {window[0]} x {window[1]} pixels leave no two parts of the one raster without common pixels; "
            "take smaller windows, or give val_input_paths"
        )
    _, train, validation = best
    top, left = origins[train].min(axis=0).tolist()
    bottom, right = origins[train].max(axis=0).tolist()
    region = (top, left, bottom - top + window[0], right - left + window[1])
    return Split(train=train.tolist(), validation=validation.tolist(), rule="region", region=region)


def _drawn(count: int, share: float, seed: int) -> list[int]:
    """Draw a share of places, at least one and not all."""
    wanted = min(count - 1, max(1, round(share * count)))
    return sorted(np.random.default_rng(seed).permutation(count)[:wanted].tolist())


__all__ = ["Split", "check_disjoint", "check_share", "split_dataset", "split_files"]
