"""What the archives benchmark reads: four workloads, as datasets of files on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from autotune.data.datasets.factories import forest_gaps
from autotune.data.datasets.gaps import GapMaskDataset
from autotune.data.stages import StagedDataset, is_staged
from autotune.spec.config import StoredForm

REPOSITORY = Path(__file__).resolve().parent.parent.parent
REAL_DATA = REPOSITORY.parent / "shared" / "data"

_ARRAY_SHAPE = (32, 32, 3)
_REAL_WINDOW, _REAL_STRIDE = 64, 16
_IMAGE_SIDE = 224


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a workload's files are: what is generated, and what is real."""

    work: Path
    real: Path


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One kind of data.

    Attributes:
        title: What it is, for people to read.
        samples: How many, unless asked otherwise.
        make: Gives the dataset of so many samples; draws the files where they are missing.
    """

    title: str
    samples: int
    make: Callable[[Place, int], Dataset[Any]]


class ArrayFiles(StagedDataset):
    """Small uint8 images, each a `.npy` file; a sample is one tensor `(32, 32, 3)`."""

    part_names = ("array.npy",)

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__()
        self.folder = folder
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> tuple[bytes, ...]:
        """Give the bytes of the file."""
        return (Path(self._path(index)).read_bytes(),)

    def decode(self, raw: Any) -> torch.Tensor:
        """Turn them into a tensor: the last bytes of the file are the pixels."""
        size = int(np.prod(_ARRAY_SHAPE))
        return torch.from_numpy(np.frombuffer(bytearray(raw[0][-size:]), np.uint8).reshape(_ARRAY_SHAPE))

    def source_paths(self) -> Iterator[str]:
        """Give every file."""
        return (self._path(index) for index in range(self.count))

    def _path(self, index: int) -> str:
        return os.path.join(self.folder, f"{index // 1000:04d}", f"{index:07d}.npy")  # noqa: PTH118 - once a sample


def _tiles(place: Place, count: int) -> Dataset[Any]:
    return forest_gaps(str(place.work / "tiles"), count=count)


def _rasters(place: Place, count: int) -> Dataset[Any]:
    """Give random windows of the real rasters."""
    rasters = GapMaskDataset.from_folder(place.real / "forest_gaps", window=_REAL_WINDOW, stride=_REAL_STRIDE)
    chosen = np.random.default_rng(0).permutation(len(rasters))[:count]
    return Subset(rasters, sorted(chosen.tolist()))


def _images(place: Place, count: int) -> Dataset[Any]:
    from autotune.data.datasets.images import ImageFilesDataset

    paths = sorted((place.real / "images" / "pets").rglob("*.jpg"))[:count]
    return ImageFilesDataset(paths, size=_IMAGE_SIDE)


def _arrays(place: Place, count: int) -> Dataset[Any]:
    folder = place.work / f"arrays-{count}"
    if not folder.exists():
        drawing = folder.with_name(f"{folder.name}.drawing")
        generator = np.random.default_rng(0)
        for index in range(count):
            part = drawing / f"{index // 1000:04d}"
            part.mkdir(parents=True, exist_ok=True)
            np.save(part / f"{index:07d}.npy", generator.integers(0, 256, _ARRAY_SHAPE, dtype=np.uint8))
        drawing.rename(folder)
    return ArrayFiles(folder, count)


WORKLOADS: Mapping[str, Workload] = {
    "A": Workload(title="pairs of 256 x 256 GeoTIFF: float32 LZW, uint8 deflate", samples=2000, make=_tiles),
    "R": Workload(title=f"windows of {_REAL_WINDOW} x {_REAL_WINDOW} of real rasters", samples=1000, make=_rasters),
    "I": Workload(title=f"JPEG photos to {_IMAGE_SIDE} x {_IMAGE_SIDE}", samples=320, make=_images),
    "C": Workload(title="uint8 arrays 32 x 32 x 3", samples=50_000, make=_arrays),
}


def stored_forms(source: Dataset[Any]) -> tuple[StoredForm, ...]:
    """Give the forms in which samples of a dataset can be stored: original bytes need stages."""
    return ("encoded", "decoded") if is_staged(source) else ("decoded",)
