"""One array a sample, each in a `.npy` file of its own that is named by an id, with a class as its label."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from autotune.data.archives.npy_bytes import npy_array
from autotune.data.datasets.file_reading import naming
from autotune.data.datasets.windows import path_array, path_at
from autotune.data.stages import Raw, StagedDataset
from autotune.errors import ArchiveError, DatasetError, SampleError, SpecError

_SHOWN = 5
"""Files or ids that a message names."""


class LabelledArraysDataset(StagedDataset):
    """Arrays in files `<folder>/<id>.npy`, with one-hot labels.

    A sample is `(array, label)`: float32 `(*dim, n_channels)` and float32 `(n_classes,)`. Files of one channel may
    leave out its axis. Pickled objects in files are never loaded.

    Args:
        ids: Names of the files without their suffix.
        labels: Class of each id, from 0 on.
        folder: Folder of the files.
        dim: Shape of an array without its channels.
        n_channels: Number of channels, the last axis.
        n_classes: Number of classes.

    Raises:
        DatasetError: There are no ids, or files or labels are missing; the message lists them.
        SpecError: A label is no class, or an id leaves the folder.
    """

    part_names = ("array.npy", "label.cls")

    def __init__(
        self,
        ids: Sequence[str],
        labels: Mapping[str, int],
        *,
        folder: str | os.PathLike[str] = "data",
        dim: Sequence[int] = (32, 32, 32),
        n_channels: int = 1,
        n_classes: int = 10,
    ) -> None:
        super().__init__()
        if n_channels < 1 or n_classes < 1 or any(side < 1 for side in dim):
            raise SpecError(
                f"dim, n_channels and n_classes must be at least 1, got {tuple(dim)}, {n_channels} and {n_classes}"
            )
        self.dim = tuple(int(side) for side in dim)
        self.n_channels, self.n_classes = n_channels, n_classes
        self._paths = path_array(_checked_paths(ids, Path(folder).expanduser()))
        self._labels = np.array(_checked_labels(ids, labels, n_classes), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> Raw:
        """Give the bytes of the file and the label as text."""
        path = self.path_of(index)
        try:
            return Path(path).read_bytes(), str(int(self._labels[index])).encode()
        except OSError as error:
            raise SampleError(f"the file cannot be read: {error}", path) from error

    def decode(self, raw: Raw) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn the bytes of a file and its label into a sample."""
        try:
            found = npy_array(memoryview(bytes(raw[0])))
        except ArchiveError as error:
            raise SampleError(f"it is no array that can be read: {error}; write it by numpy.save") from error
        if found.dtype.kind not in "biuf":
            raise SampleError(f"an array must hold numbers, got {found.dtype}")
        whole = (*self.dim, self.n_channels)
        if found.shape != whole and not (self.n_channels == 1 and found.shape == self.dim):
            raise SampleError(f"an array must have the shape {whole}, got {found.shape}")
        label = torch.zeros(self.n_classes, dtype=torch.float32)
        label[int(bytes(raw[1]))] = 1.0
        return torch.from_numpy(np.array(found.reshape(whole), dtype=np.float32, order="C")), label

    def base_sample(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Read one sample; what is wrong with it names the file."""
        with naming(self.path_of(index)):
            return self.decode(self.read(index))

    def path_of(self, index: int) -> str:
        """Give the path of the file behind a sample."""
        return path_at(self._paths, index)

    def source_paths(self) -> Iterator[str]:
        """Give every file behind the dataset."""
        return (self.path_of(index) for index in range(len(self)))

    def sample_structure(self) -> str:
        """Declare the structure of a sample."""
        shape = ",".join(map(str, (*self.dim, self.n_channels)))
        return f"(float32[{shape}], float32[{self.n_classes}])"


def _checked_paths(ids: Sequence[str], folder: Path) -> list[Path]:
    if not len(ids):
        raise DatasetError("at least one id is needed, got none")
    root = folder.absolute()
    leaving = [name for name in ids if Path(str(name)).is_absolute() or ".." in Path(str(name)).parts]
    if leaving:
        raise SpecError(f"an id names a file inside {folder}, got {leaving[0]!r}")
    paths = [root / f"{name}.npy" for name in ids]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise DatasetError(f"each id needs its file <folder>/<id>.npy; {len(missing)} are missing: {_listed(missing)}")
    return paths


def _checked_labels(ids: Sequence[str], labels: Mapping[str, int], n_classes: int) -> list[int]:
    unlabelled = [str(name) for name in ids if name not in labels]
    if unlabelled:
        raise DatasetError(f"each id needs a label; {len(unlabelled)} have none: {_listed(unlabelled)}")
    chosen = [labels[name] for name in ids]
    for name, label in zip(ids, chosen, strict=True):
        if not isinstance(label, int | np.integer) or not 0 <= label < n_classes:
            raise SpecError(f"a label is a class from 0 to {n_classes - 1}, got {label!r} for {name!r}")
    return [int(label) for label in chosen]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


__all__ = ["LabelledArraysDataset"]
