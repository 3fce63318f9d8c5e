"""Arrays of NumPy: the files of a folder, or the rows of one file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch

from autotune.data.archives.npy_bytes import npy_array
from autotune.data.datasets.base import BaseDataset, KeepingSettings, existing_path
from autotune.data.datasets.class_folders import class_numbers, visible_files
from autotune.data.datasets.file_reading import file_bytes
from autotune.data.datasets.windows import path_array, path_at
from autotune.data.modes import LoadingMode
from autotune.data.stages import Raw
from autotune.errors import ArchiveError, DatasetError, SampleError
from autotune.units import GIB

NPY_SUFFIXES = (".npy",)
MAX_ARRAY_BYTES = 16 * GIB
"""A file may have any size; no sample above this is read. One file of many rows may be larger."""
_WHOLE = "give one whole array of numbers, as numpy.save writes it"
_MAGIC = np.lib.format.MAGIC_PREFIX


class NpyDataset(BaseDataset):
    """Arrays with the number of their class folder, as `(array, target)`.

    Of a folder every file is a sample (but for hidden ones), of one file every row along its first axis. Files are
    never unpickled, and the size that one declares is believed only where it is the file's own.

    Args:
        data_path: Folder of `.npy` files, in class folders or without; or one file.
        loading_mode: How samples come into memory.
        **settings: Settings of `BaseDataset`: `transform` (of the array), `target_transform`, `cache_size`,
            `on_broken`, `memory_limit_bytes` and `seed`.

    Raises:
        DatasetError: There is no array, the one file is damaged or has no rows, or some files lie in class folders and
            some beside them.
    """

    unfingerprinted = ("classes", "_rows")
    part_names = ("array.npy", "label.cls")

    def __init__(
        self,
        data_path: str | os.PathLike[str],
        loading_mode: LoadingMode | str = LoadingMode.LAZY,
        **settings: Unpack[KeepingSettings],
    ) -> None:
        path = existing_path(data_path)
        files = [path] if path.is_file() else visible_files(path, NPY_SUFFIXES)
        if not files:
            raise DatasetError(f"there is no .npy file under {path}")
        self._paths = path_array(files)
        self.classes, self._labels = class_numbers(files, path, kind="arrays")
        self._single = path.is_file()
        self._rows: npt.NDArray[Any] | None = None
        self._count = len(_mapped(path)) if self._single else len(files)
        super().__init__(path, loading_mode=loading_mode, **settings)

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> Raw:
        """Give one array as the bytes of a file, and its label."""
        place = self._place(index)
        if not self._single:
            data = file_bytes(self.path_of(place), kind="array", max_bytes=MAX_ARRAY_BYTES)
            return data, str(int(self._labels[place])).encode()
        sink = io.BytesIO()
        np.save(sink, self._mapped_rows()[place], allow_pickle=False)
        return sink.getvalue(), b"0"

    def decode(self, raw: Raw) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn those bytes into a sample before the transforms."""
        try:
            found = npy_array(memoryview(bytes(raw[0])))
            array = np.require(found, dtype=found.dtype.newbyteorder("="), requirements=["C", "W", "O"])
            return torch.from_numpy(array), torch.tensor(int(bytes(raw[1])))
        except (ArchiveError, ValueError, TypeError) as error:
            raise SampleError(f"it is no array that can be read: {error}; {_WHOLE}") from error

    def path_of(self, index: int) -> str:
        """Give the path of the file behind a sample."""
        return path_at(self._paths, 0 if self._single else self._place(index))

    def source_paths(self) -> Iterator[str]:
        """Give every file behind the dataset."""
        return (path_at(self._paths, number) for number in range(len(self._paths)))

    def _mapped_rows(self) -> npt.NDArray[Any]:
        """Give the rows of the one file, which each process maps at its first use."""
        if self._rows is None:
            try:
                rows = _mapped(self.data_path)
            except DatasetError as error:
                raise SampleError(str(error), str(self.data_path)) from error
            if len(rows) != self._count:
                raise SampleError(
                    f"the file had {self._count:,} rows when the dataset was made, and has {len(rows):,}; make it anew",
                    str(self.data_path),
                )
            self._rows = rows
        return self._rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}


def _mapped(path: Path) -> npt.NDArray[Any]:
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
        # Anything else numpy would take for a pickle, or for an archive of several arrays.
        with np.errstate(over="raise"):  # of the bytes that a header claims
            rows: npt.NDArray[Any] | None = (
                np.load(path, mmap_mode="r", allow_pickle=False) if start == _MAGIC else None
            )
    except (ValueError, TypeError, ArithmeticError, EOFError, OSError, SyntaxError, TokenError) as error:
        raise DatasetError(f"{path}: it is no array that can be read: {error}; {_WHOLE}") from error
    if rows is None:
        raise DatasetError(f"{path}: it is no array, as it starts with {start!r} in place of {_MAGIC!r}; {_WHOLE}")
    if not rows.ndim or not len(rows):
        raise DatasetError(f"{path}: an array has rows, got one of shape {rows.shape}")
    return rows


__all__ = ["MAX_ARRAY_BYTES", "NPY_SUFFIXES", "NpyDataset"]
