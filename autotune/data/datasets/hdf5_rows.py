"""Rows of one HDF5 dataset as bytes and back, read chunk by chunk where that serves several rows."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch

from autotune.data.archives.npy_bytes import npy_array
from autotune.data.datasets.hdf5_files import Hdf5Handle, check_filters, filters_of
from autotune.data.extras import needed
from autotune.errors import ArchiveError, DatasetError, SampleError
from autotune.units import MIB

_NUMBERS = "biufc"
_BLOCK_BYTES_MAX = 32 * MIB
"""A run of rows that is larger is not read at once."""
_HELD_BYTES = 64 * MIB
"""Bytes of such runs that one process keeps for each dataset."""


@dataclass(frozen=True, kw_only=True)
class RowsFacts:
    """What is known of the rows of one dataset.

    Attributes:
        name: Its name in the file.
        count: Number of rows.
        dtype: Type of the numbers in native byte order, as numpy writes it; of text `str`.
        shape: Shape of one row; empty for numbers and text.
        kind: Numbers of one shape, text, or numbers whose count varies from row to row.
        chunk_rows: Rows of one chunk; 1 where the dataset is not in chunks.
        compressed: Whether a chunk has to be decompressed as a whole.
    """

    name: str
    count: int
    dtype: str
    shape: tuple[int, ...]
    kind: Literal["fixed", "text", "varying"]
    chunk_rows: int
    compressed: bool

    @classmethod
    def of(cls, dataset: Any, name: str, path: Path) -> Self:
        """Look at a dataset.

        Raises:
            DatasetError: It has no rows, or none that become tensors or text; or a filter is unknown.
        """
        if not dataset.shape:
            raise DatasetError(
                f"{path}: a dataset has rows, got {name!r} with a single value or none; choose one with an axis"
            )
        check_filters(dataset, path)
        kind, dtype = _kind_of(dataset, name, path)
        return cls(
            name=name,
            count=int(dataset.shape[0]),
            dtype=dtype,
            shape=tuple(int(side) for side in dataset.shape[1:]),
            kind=kind,
            chunk_rows=1 if dataset.chunks is None else max(1, min(int(dataset.chunks[0]), int(dataset.shape[0]))),
            compressed=bool(filters_of(dataset)),
        )

    @property
    def block_rows(self) -> int:
        """Rows that are read at once: those of a chunk, where they are decompressed together."""
        if not self.compressed or self.kind != "fixed":
            return 1
        row_bytes = max(1, np.dtype(self.dtype).itemsize * int(np.prod(self.shape, dtype=np.int64)))
        return self.chunk_rows if self.chunk_rows * row_bytes <= _BLOCK_BYTES_MAX else 1

    def to_bytes(self, row: Any) -> bytes:
        """Write one row as h5py gives it."""
        if self.kind == "text":
            return row if isinstance(row, bytes) else str(row).encode("utf-8", "surrogateescape")
        if self.kind == "varying":
            sink = io.BytesIO()
            np.save(sink, np.ascontiguousarray(row).astype(self.dtype), allow_pickle=False)
            return sink.getvalue()
        return np.ascontiguousarray(row, dtype=self.dtype).tobytes()

    def from_bytes(self, data: bytes) -> Any:
        """Make text or a tensor of those bytes.

        Raises:
            SampleError: Text is not UTF-8, or there are not as many numbers as a row has.
        """
        if self.kind == "text":
            try:
                return data.decode("utf-8")
            except UnicodeDecodeError as error:
                raise SampleError(f"text of the dataset {self.name!r} is not UTF-8: {error}") from error
        try:
            if self.kind == "varying":
                return torch.from_numpy(npy_array(memoryview(data)))
            return torch.from_numpy(np.frombuffer(data, dtype=self.dtype).reshape(self.shape).copy())
        except (ArchiveError, ValueError, TypeError) as error:
            raise SampleError(
                f"rows of the dataset {self.name!r} are {self.dtype} of shape {self.shape}, got {len(data)} bytes that "
                f"are none: {error}"
            ) from error

    def structure(self) -> str | None:
        """Write the structure of one row as `facts.describe_sample` does; None where it varies."""
        if self.kind == "varying":
            return None
        if self.kind == "text":
            return "str"
        dtype = str(torch.from_numpy(np.empty(0, self.dtype)).dtype).removeprefix("torch.")
        return f"{dtype}[{','.join(str(side) for side in self.shape)}]"


class RowsReader:
    """Reads rows of some datasets of a file and keeps the blocks of rows that were used last.

    A copy or pickle opens the file anew and keeps nothing yet.

    Args:
        path: The file.
        facts: What is known of the rows, for each dataset.
    """

    def __init__(self, path: Path, facts: Sequence[RowsFacts]) -> None:
        self._handle = Hdf5Handle(path)
        self._facts = tuple(facts)
        self._blocks: dict[str, OrderedDict[int, npt.NDArray[Any]]] = {one.name: OrderedDict() for one in facts}

    def row(self, index: int) -> tuple[bytes, ...]:
        """Give the bytes of one row, those of each dataset.

        Raises:
            SampleError: The file is damaged there, or gone.
        """
        return tuple(self._row_of(facts, index) for facts in self._facts)

    def close(self) -> None:
        """Close the file in this process; the next row opens it again."""
        self._handle.close()
        for blocks in self._blocks.values():
            blocks.clear()

    def _row_of(self, facts: RowsFacts, index: int) -> bytes:
        try:
            return facts.to_bytes(self._read(facts, index))
        except DatasetError as error:  # it cannot be opened any more
            raise SampleError(str(error), str(self._handle.path)) from error
        except (OSError, RuntimeError, KeyError, IndexError, TypeError, ValueError) as error:
            # The last three where rows were taken away, or are others, since the dataset was made. An index error
            # that came through would end a loop over the dataset.
            raise SampleError(
                f"row {index} of the dataset {facts.name!r} cannot be read: {error}", str(self._handle.path)
            ) from error

    def _read(self, facts: RowsFacts, index: int) -> Any:
        dataset = self._handle.dataset(facts.name)
        rows = facts.block_rows
        if rows == 1:
            return dataset[index]
        first = index - index % rows
        kept = self._blocks[facts.name]
        block = kept.get(first)
        if block is None:
            block = dataset[first : first + rows]
            while kept and (len(kept) + 1) * block.nbytes > _HELD_BYTES:
                kept.popitem(last=False)
            kept[first] = block
        kept.move_to_end(first)
        return block[index - first]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self._handle.path, "facts": self._facts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        RowsReader.__init__(self, state["path"], state["facts"])


def _kind_of(dataset: Any, name: str, path: Path) -> tuple[Literal["fixed", "text", "varying"], str]:
    h5py = needed("h5py", "reading HDF5")
    dtype = dataset.dtype
    inner = h5py.check_vlen_dtype(dtype)
    if h5py.check_string_dtype(dtype) is not None or dtype.kind == "S":
        if dataset.ndim == 1:
            return "text", "str"
    elif inner is not None and np.dtype(inner).kind in _NUMBERS and dataset.ndim == 1:
        return "varying", _native(np.dtype(inner))
    elif dtype.kind in _NUMBERS:
        native = _native(dtype)
        try:
            torch.from_numpy(np.empty(0, native))
        except TypeError:
            pass
        else:
            return "fixed", native
    raise DatasetError(
        f"{path}: rows are numbers that torch has a type for, a text each, or lists of numbers, got {name!r} of "
        f"{dtype} with {dataset.ndim} dimensions"
    )


def _native(dtype: np.dtype[Any]) -> str:
    return str(dtype.newbyteorder("=").str)


__all__ = ["RowsFacts", "RowsReader"]
