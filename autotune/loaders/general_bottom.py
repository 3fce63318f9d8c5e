"""What a general loader asks of the datasets at the bottom of `Subset` and `ConcatDataset`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset, Dataset, Subset

from autotune.data.datasets.base import BaseDataset
from autotune.data.datasets.broken import NoSamples
from autotune.data.modes import LoadingMode
from autotune.data.stages import leaves_of, locate
from autotune.errors import SampleError

_logger = logging.getLogger(__name__)


def loaded(dataset: Dataset[Any], archive_root: Path | None) -> Dataset[Any]:
    """Give what is iterated in the dataset's loading mode."""
    if isinstance(dataset, BaseDataset):
        return dataset.loaded(archive_root)
    for leaf in leaves_of(dataset):
        if isinstance(leaf, BaseDataset) and leaf.loading_mode is LoadingMode.STREAMING:
            _logger.warning(
                "%s in the mode STREAMING is streamed as a whole alone, and inside %s its samples are read one by one, "
                "in any order; give the dataset itself",
                type(leaf).__name__,
                type(dataset).__name__,
            )
            break
    return dataset


def leaves_out(dataset: Dataset[Any]) -> bool:
    """Tell whether broken samples are left out of batches."""
    return any(getattr(leaf, "on_broken", None) == "skip" for leaf in leaves_of(dataset))


def leaving_out(dataset: Any) -> Any:
    """Give a dataset whose batches leave broken samples out where a `ConcatDataset` would ask for each by itself."""
    if type(dataset) is Subset:
        inner = leaving_out(dataset.dataset)
        return dataset if inner is dataset.dataset else Subset(inner, dataset.indices)
    if type(dataset) is not ConcatDataset:
        return dataset
    whole = copy.copy(dataset)  # of the same class, so that it is known for what it is
    whole.__dict__["__getitems__"] = partial(_readable, dataset)
    return whole


def _readable(dataset: ConcatDataset[Any], indices: Sequence[int]) -> list[Any]:
    """Give the samples of a batch that can be read."""
    samples, broken = [], []
    for index in indices:
        leaf, place = locate(dataset, index)
        try:
            samples.append(leaf[place])
        except SampleError as error:
            if getattr(leaf, "on_broken", None) != "skip":
                raise
            broken.append(str(error.path))
    return samples or NoSamples(broken)


def broken_files(dataset: Dataset[Any]) -> tuple[str, ...] | None:
    """Name the files that could not be read so far; None where no dataset counts them."""
    counted = [getattr(leaf, "broken_files", None) for leaf in leaves_of(dataset)]
    if all(files is None for files in counted):
        return None
    return tuple(dict.fromkeys(file for files in counted for file in files or ()))


__all__ = ["broken_files", "leaves_out", "leaving_out", "loaded"]
