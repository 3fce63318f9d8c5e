"""Arrays of NumPy: the files of a folder, or the rows of one file."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from autotune.data.datasets.base import BaseDataset, existing_path
from autotune.data.datasets.broken import OnBroken
from autotune.data.datasets.text_lines import class_numbers
from autotune.data.datasets.windows import path_array, path_at
from autotune.data.modes import LoadingMode
from autotune.data.stages import Raw
from autotune.errors import DatasetError, SampleError

NPY_SUFFIXES = (".npy",)


class NpyDataset(BaseDataset):
    """Arrays with the number of their class folder, as `(array, target)`.

    Of a folder every file is a sample, of one file every row along its first axis. Files are never unpickled.

    Args:
        data_path: Folder of `.npy` files, in class folders or without; or one file.
        loading_mode: How samples come into memory.
        transform: Applied to the array.
        target_transform: Applied to the target.
        cache_size: Samples that `LAZY` keeps in each process.
        on_broken: What becomes of an array that cannot be read.
        memory_limit_bytes: Most bytes that `EAGER` and `CACHED` keep.
        seed: Seed of what is random in the transforms.

    Raises:
        DatasetError: There is no array, or the one file is damaged or has no rows.
    """

    unfingerprinted = ("classes", "_rows")
    part_names = ("array.npy", "label.cls")

    def __init__(
        self,
        data_path: str | os.PathLike[str],
        loading_mode: LoadingMode | str = LoadingMode.LAZY,
        *,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        cache_size: int = 0,
        on_broken: OnBroken = "raise",
        memory_limit_bytes: int | None = None,
        seed: int = 0,
    ) -> None:
        path = existing_path(data_path)
        files = [path] if path.is_file() else sorted(one for one in path.rglob("*.npy") if one.is_file())
        if not files:
            raise DatasetError(f"there is no .npy file under {path}")
        self._paths = path_array(files)
        self.classes, self._labels = class_numbers(files, path)
        self._single = path.is_file()
        self._rows: npt.NDArray[Any] | None = None
        self._count = len(_mapped(path)) if self._single else len(files)
        super().__init__(
            path,
            transform,
            target_transform,
            loading_mode,
            cache_size=cache_size,
            on_broken=on_broken,
            memory_limit_bytes=memory_limit_bytes,
            seed=seed,
        )

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> Raw:
        """Give one array as the bytes of a file, and its label."""
        place = self._place(index)
        if not self._single:
            return Path(self.path_of(place)).read_bytes(), str(int(self._labels[place])).encode()
        if self._rows is None:
            self._rows = _mapped(self.data_path)
        sink = io.BytesIO()
        np.save(sink, self._rows[place], allow_pickle=False)
        return sink.getvalue(), b"0"

    def decode(self, raw: Raw) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn those bytes into a sample before the transforms."""
        try:
            found = np.load(io.BytesIO(bytes(raw[0])), allow_pickle=False)
            if not isinstance(found, np.ndarray):
                raise SampleError("the file holds several arrays; a sample is one array in a .npy file")
            array = np.require(found, dtype=found.dtype.newbyteorder("="), requirements=["C", "W", "O"])
            return torch.from_numpy(array), torch.tensor(int(bytes(raw[1])))
        except (ValueError, TypeError, EOFError, OSError, SyntaxError) as error:
            raise SampleError(f"it is no array that can be read: {error}") from error

    def path_of(self, index: int) -> str:
        """Give the path of the file behind a sample."""
        return path_at(self._paths, 0 if self._single else self._place(index))

    def source_paths(self) -> Iterator[str]:
        """Give every file behind the dataset."""
        return (path_at(self._paths, number) for number in range(len(self._paths)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}


def _mapped(path: Path) -> npt.NDArray[Any]:
    try:
        rows: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        raise DatasetError(f"{path}: it is no array that can be read: {error}") from error
    if not rows.ndim or not len(rows):
        raise DatasetError(f"{path}: an array has rows, got one of shape {rows.shape}")
    return rows


__all__ = ["NPY_SUFFIXES", "NpyDataset"]
