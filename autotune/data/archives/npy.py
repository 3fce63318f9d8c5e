"""Memory-mapped arrays: one `.npy` for each leaf of a sample, a row for each sample."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from autotune.data.archives._base import (
    HashedFile,
    Manifest,
    Progress,
    check_form,
    finish_manifest,
    read_manifest,
    sized,
    write_file,
)
from autotune.data.archives.production import Produced, produce
from autotune.data.batch_buffers import BatchBuffers
from autotune.data.fixed_layout import ByteBlock, FixedLayout, row_of
from autotune.data.samples import take_apart
from autotune.data.stages import apart, base_sample
from autotune.errors import ArchiveDamagedError, ArchiveError
from autotune.spec.config import StoredForm

_LAYOUT_NAME = "layout.json"


class NpyFormat:
    """Decoded samples of one fixed layout, read without decoding and in whole batches."""

    def build(
        self,
        source: Dataset[Any],
        directory: Path,
        *,
        stored: StoredForm = "decoded",
        progress: Progress | None = None,
        workers: int = 0,
    ) -> Manifest:
        """Store every sample of `source` as a row of each array.

        Raises:
            ArchiveError: Samples differ in structure or shape, or hold what is no array.
        """
        check_form("npy", stored)
        count = sized(source)
        layout = FixedLayout.of(base_sample(apart(source), 0))
        files = [HashedFile(directory / _leaf_name(place)) for place in range(len(layout.shapes))]
        with ExitStack() as stack:
            for file, dtype, shape in zip(files, layout.dtypes, layout.shapes, strict=True):
                stack.enter_context(file).write(_header(dtype, (count, *shape)))
            for row in produce(source, partial(_row, layout), workers=workers, progress=progress):
                start = 0
                for file, size in zip(files, layout.row_bytes, strict=True):
                    file.write(row.data[start : start + size])
                    start += size
        entries = {_leaf_name(place): file.entry for place, file in enumerate(files)}
        described = {"skeleton": layout.skeleton, "dtypes": layout.dtypes, "shapes": layout.shapes}
        entries[_LAYOUT_NAME] = write_file(directory, _LAYOUT_NAME, json.dumps(described).encode())
        return finish_manifest(source, directory, form=("npy", stored), files=entries)

    def open(self, directory: Path) -> Dataset[Any]:
        """Open the arrays; they are mapped at the first access, in each process anew."""
        return NpyDataset(directory)


class NpyDataset(Dataset[Any]):
    """Samples of a folder that `NpyFormat` built, as fresh writable copies."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._count = read_manifest(directory).count
        try:
            described = json.loads((directory / _LAYOUT_NAME).read_bytes())
            shapes = tuple(tuple(shape) for shape in described["shapes"])
            self._layout = FixedLayout(described["skeleton"], tuple(described["dtypes"]), shapes)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArchiveDamagedError(f"{directory / _LAYOUT_NAME} cannot be read: {error}") from error
        self._blocks: list[ByteBlock] | None = None
        self._buffers = BatchBuffers()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self._layout.row_sample(self._mapped(), self._row(index))

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Give the samples of a whole batch, gathered at once."""
        rows = np.array([self._row(index) for index in indices], dtype=np.int64)
        return self._layout.gather(self._mapped(), rows, self._buffers)

    def _row(self, index: int) -> int:
        if not -self._count <= index < self._count:
            raise IndexError(f"index must be under {self._count}, got {index}")
        return index % self._count

    def _mapped(self) -> list[ByteBlock]:
        if self._blocks is None:
            self._blocks = [self._map(place) for place in range(len(self._layout.shapes))]
        return self._blocks

    def _map(self, place: int) -> ByteBlock:
        path = self.directory / _leaf_name(place)
        row_bytes = self._layout.row_bytes[place]
        if not row_bytes:
            return np.empty((self._count, 0), np.uint8)
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ArchiveDamagedError(f"{path} cannot be mapped: {error}") from error
        if mapped.nbytes != self._count * row_bytes:
            raise ArchiveDamagedError(f"{path} must hold {self._count * row_bytes} bytes, got {mapped.nbytes}")
        block: ByteBlock = mapped.view(np.ndarray).reshape(-1).view(np.uint8).reshape(self._count, row_bytes)
        return block

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_blocks": None}


def check_layout(expected: FixedLayout, found: FixedLayout, index: int) -> None:
    """Refuse a sample that has another layout than the first one."""
    if found != expected:
        raise ArchiveError(
            f"samples of one fixed shape are needed, got ({expected}) for sample 0 and ({found}) for sample {index}; "
            "crop or pad them in the dataset, or use archive 'tar' or 'lmdb'"
        )


def _leaf_name(place: int) -> str:
    return f"leaf_{place:02d}.npy"


def _row(layout: FixedLayout, source: Dataset[Any], index: int) -> Produced:
    skeleton, leaves = take_apart(base_sample(source, index))
    check_layout(layout, FixedLayout.of_parts(skeleton, leaves), index)
    return Produced(None, b"".join(row_of(leaf).data for leaf in leaves))


def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(buffer, {"descr": description, "fortran_order": False, "shape": shape})
    return buffer.getvalue()
