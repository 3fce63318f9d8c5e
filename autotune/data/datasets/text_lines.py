"""Where texts begin and end in their files, kept in arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autotune.data.datasets.windows import path_array
from autotune.errors import DatasetError
from autotune.units import MIB

_BLOCK_BYTES = 16 * MIB
_NEWLINE, _RETURN = 10, 13
_FILE, _START, _SIZE, _LINE = range(4)


@dataclass(frozen=True)
class TextIndex:
    """Extents of texts.

    Attributes:
        paths: Files, as `path_array` keeps them.
        extents: File, first byte, bytes and first line (from 1) of each text, int64 `(texts, 4)`.
    """

    paths: npt.NDArray[np.bytes_]
    extents: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.extents)

    def extent(self, index: int) -> tuple[int, int, int, int]:
        """Give file, first byte, bytes and first line of one text."""
        file, start, size, line = self.extents[index].tolist()
        return file, start, size, line


def index_files(files: Sequence[Path]) -> TextIndex:
    """Take every file as one text.

    Raises:
        DatasetError: A file cannot be looked at.
    """
    extents = np.zeros((len(files), 4), dtype=np.int64)
    for number, path in enumerate(files):
        extents[number] = number, 0, _size_of(path), 1
    return TextIndex(path_array(files), extents)


def index_lines(files: Sequence[Path], *, blank_lines: bool) -> TextIndex:
    """Take every line as one text, in the order of the files; each file is read once.

    Args:
        files: The files.
        blank_lines: Whether empty lines count.

    Raises:
        DatasetError: A file cannot be read.
    """
    parts = [np.zeros((0, 4), dtype=np.int64)]
    for number, path in enumerate(files):
        try:
            parts.append(_lines_of(path, number, blank_lines=blank_lines))
        except OSError as error:
            raise DatasetError(f"{path}: the text cannot be read: {error}") from error
    return TextIndex(path_array(files), np.concatenate(parts))


def _lines_of(path: Path, file: int, *, blank_lines: bool) -> npt.NDArray[np.int64]:
    ends = np.concatenate([np.zeros(0, dtype=np.int64), *_line_ends(path)])
    size = _size_of(path)
    if size > (int(ends[-1]) if len(ends) else 0):  # the last line has no end of its own
        ends = np.append(ends, size)
    starts = np.concatenate([np.zeros(min(1, len(ends)), dtype=np.int64), ends[:-1]])
    found = np.stack([np.full(len(ends), file), starts, ends - starts, np.arange(1, len(ends) + 1)], axis=1)
    return found if blank_lines or not len(found) else found[~_blank(path, found)]


def _line_ends(path: Path) -> Iterator[npt.NDArray[np.int64]]:
    with path.open("rb") as opened:
        offset = 0
        while block := opened.read(_BLOCK_BYTES):
            yield np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == _NEWLINE) + offset + 1
            offset += len(block)


def _blank(path: Path, found: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tell which lines hold nothing but their end."""
    blank: npt.NDArray[np.bool_] = np.zeros(len(found), dtype=np.bool_)
    short = np.flatnonzero(found[:, _SIZE] <= 2)
    data = np.memmap(path, dtype=np.uint8, mode="r")
    for number in short.tolist():
        start, size = found[number, _START], found[number, _SIZE]
        blank[number] = bool(np.isin(data[start : start + size], (_NEWLINE, _RETURN)).all())
    return blank


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DatasetError(f"{path}: the text cannot be looked at: {error}") from error


__all__ = ["TextIndex", "index_files", "index_lines"]
