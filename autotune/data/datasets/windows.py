"""Windows over rasters of any size, kept in arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.errors import SpecError

Size = int | tuple[int, int]
"""A square's side, or height and width."""


def as_size(value: Size | Sequence[int], name: str) -> tuple[int, int]:
    """Give height and width.

    Raises:
        SpecError: One of them is under 1.
    """
    height, width = (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
    if height < 1 or width < 1:
        raise SpecError(f"{name} must be at least 1 pixel, got {value!r}")
    return height, width


def window_origins(
    sizes: Iterable[tuple[int, int]], window: tuple[int, int], stride: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """Give file, row and column of each window, shape `(windows, 3)`, file by file and row by row.

    Every pixel is covered: where the stride leaves a rest, the last window is moved back to the edge. A
    raster that is smaller than the window gives one window, which reaches beyond it.
    """
    found: list[npt.NDArray[np.int64]] = [np.empty((0, 3), dtype=np.int64)]
    for number, size in enumerate(sizes):
        rows, columns = (_starts(size[axis], window[axis], stride[axis]) for axis in (0, 1))
        grid = np.stack(np.meshgrid(np.int64(number), rows, columns, indexing="ij"), axis=-1)
        found.append(grid.reshape(-1, 3))
    return np.concatenate(found)


def _starts(size: int, window: int, stride: int) -> npt.NDArray[np.int64]:
    last = max(0, size - window)
    starts = np.arange(0, last + 1, stride, dtype=np.int64)
    return starts if starts[-1] == last else np.append(starts, last)


def pad_to(pixels: npt.NDArray[Any], window: tuple[int, int], value: float) -> npt.NDArray[Any]:
    """Fill up `(bands, height, width)` at the bottom and the right to the size of a window."""
    below, right = window[0] - pixels.shape[1], window[1] - pixels.shape[2]
    if below <= 0 and right <= 0:
        return pixels
    return np.pad(pixels, ((0, 0), (0, max(0, below)), (0, max(0, right))), constant_values=value)


def path_array(paths: Iterable[str | os.PathLike[str]]) -> npt.NDArray[np.bytes_]:
    """Keep paths in one array: a list of text grows in every worker as its references are counted."""
    return np.array([os.fsencode(os.path.abspath(path)) for path in paths], dtype=np.bytes_)  # noqa: PTH100


def path_at(paths: npt.NDArray[np.bytes_], index: int) -> str:
    """Give one path as text."""
    return os.fsdecode(bytes(paths[index]))
