"""TIF files in folders: which there are, whether two folders match by name, and how names are split."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from autotune.errors import DatasetError, SpecError

TIF_SUFFIXES = (".tif", ".tiff")
_NAMED_MAX = 5
"""Names that an error lists."""


def tif_files(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Give the TIF files in a folder by their names without suffix, in the order of these names.

    Hidden files are left out.

    Raises:
        DatasetError: There is no such folder, it holds no TIF file, or two of one name.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DatasetError(f"the folder of images must exist, got {os.fspath(folder)!r}{_neighbours(root)}")
    found = sorted(
        path
        for path in root.iterdir()
        if path.suffix.lower() in TIF_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise DatasetError(f"a folder of images holds files named *.tif or *.tiff, got none in {root}")
    by_name: dict[str, Path] = {}
    for path in found:
        other = by_name.setdefault(path.stem, path)
        if other is not path:
            raise DatasetError(
                f"names without suffix are unique in a folder, got {other.name} and {path.name} in {root}"
            )
    return dict(sorted(by_name.items()))


def matched_names(target: Mapping[str, Path], condition: Mapping[str, Path]) -> list[str]:
    """Give the names that two folders share, which are all of both.

    Raises:
        DatasetError: Some file has no counterpart; those are listed, the first few of each folder and their number.
    """
    lonely = [
        _lonely(mine, other) for mine, other in ((target, condition), (condition, target)) if mine.keys() - other.keys()
    ]
    if lonely:
        raise DatasetError(
            f"the folders of a pair must hold files of the same names, and {'; '.join(lonely)}. "
            "Add the missing files, or take out those without a counterpart"
        )
    return list(target)


def split_names(names: Sequence[str], train_split: float, seed: int) -> tuple[list[str], list[str]]:
    """Split names into those of training and of validation, each in the order that they came in.

    Which names go where depends on names and seed alone. Both sides get at least one.

    Args:
        names: Different names.
        train_split: Share of training, between 0 and 1.
        seed: Seed of the choice.

    Raises:
        DatasetError: There are not two names.
    """
    check_train_split(train_split)
    if len(names) < 2:
        raise DatasetError(f"splitting off validation needs at least 2 names, got {len(names)}; give val_dir instead")
    shuffled = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    count = min(max(1, round(train_split * len(names))), len(names) - 1)
    chosen = set(shuffled[:count])
    return (
        [name for place, name in enumerate(names) if place in chosen],
        [name for place, name in enumerate(names) if place not in chosen],
    )


def check_train_split(train_split: float) -> None:
    """Refuse a share that leaves one side without anything.

    Raises:
        SpecError: It is not between 0 and 1.
    """
    number = isinstance(train_split, int | float) and not isinstance(train_split, bool)
    if not number or not math.isfinite(train_split) or not 0 < train_split < 1:
        raise SpecError(
            f"train_split must be above 0 and below 1, got {train_split!r}; val_dir takes validation from elsewhere"
        )


def _neighbours(root: Path) -> str:
    parent = root.parent
    if not parent.is_dir():
        return f"; {parent} does not exist either"
    folders = sorted(path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    return (
        f"; {parent} holds the folders {', '.join(folders[:_NAMED_MAX])}" if folders else f"; {parent} has no folders"
    )


def _lonely(mine: Mapping[str, Path], other: Mapping[str, Path]) -> str:
    missing = [path for name, path in mine.items() if name not in other]
    shown = ", ".join(path.name for path in missing[:_NAMED_MAX])
    rest = f" and {len(missing) - _NAMED_MAX} more" if len(missing) > _NAMED_MAX else ""
    there = next(iter(other.values())).parent
    plural = "s" if len(missing) > 1 else ""
    return (
        f"{len(missing)} file{plural} of {missing[0].parent} {'are' if plural else 'is'} not in {there}: {shown}{rest}"
    )


__all__ = ["TIF_SUFFIXES", "check_train_split", "matched_names", "split_names", "tif_files"]
