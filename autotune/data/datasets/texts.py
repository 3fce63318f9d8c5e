"""Text as numbers: the lines of a file or the files of a folder, by a tokenizer or character by character."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import numpy.typing as npt
import torch

from autotune.data.datasets.base import BaseDataset, KeepingSettings, existing_path
from autotune.data.datasets.class_folders import class_numbers, visible_files
from autotune.data.datasets.file_reading import naming
from autotune.data.datasets.text_lines import TextIndex, index_files, index_lines
from autotune.data.datasets.windows import path_at
from autotune.data.modes import LoadingMode
from autotune.data.stages import Raw
from autotune.errors import DatasetError, SampleError, SpecError
from autotune.units import format_bytes

MAX_TEXT_BYTES = 1024**3
"""A file may have any size; no text above this is read in one piece."""
TEXT_SUFFIXES = (".csv", ".json", ".jsonl", ".log", ".md", ".text", ".tsv", ".txt")

Tokenizer = Callable[[str], Any]
"""Turns text into ids: a sequence of whole numbers, or a mapping with these under `input_ids`."""


class TextDataset(BaseDataset):
    """Texts as sequences of ids, cut and padded to one length.

    A sample is `(ids, target)`: int64 `(max_length,)` and the number of the class folder (0 without such folders) as
    an int64 tensor without dimensions; with `with_lengths` a third part holds how many ids come before the padding.
    Without padding a sample has as many ids as it has, at most `max_length`: for `variable_length_collate` and
    `padded_collate`.

    Args:
        data_path: A file, of which every line is a text, or a folder, of which every file is one.
        tokenizer: Turns a text into ids; None takes characters, as the numbers of their Unicode code points.
        max_length: Most ids of a text; the rest is cut off.
        loading_mode: How samples come into memory.
        unit: `line` or `file`, what one text is; None is `line` for a file and `file` for a folder.
        padding: Whether shorter texts are filled up to `max_length`.
        padding_id: What they are filled up with; 0 is the id of no character that occurs in text.
        with_lengths: Whether samples tell their length before the padding.
        blank_lines: Whether empty lines are texts.
        suffixes: What files of a folder are read, by the ends of their names; hidden ones are not.
        **settings: Settings of `BaseDataset`: `transform` (of the ids), `target_transform`, `cache_size`, `on_broken`,
            `memory_limit_bytes` and `seed`. A text that is not UTF-8 is a broken one.

    Raises:
        DatasetError: There is no text, or some lie in class folders and some beside them.
        SpecError: A setting breaks its rule.
    """

    part_names = ("text.txt", "label.cls", "line.txt")
    unfingerprinted = ("classes",)

    def __init__(
        self,
        data_path: str | os.PathLike[str],
        tokenizer: Tokenizer | None = None,
        max_length: int = 512,
        loading_mode: LoadingMode | str = LoadingMode.LAZY,
        *,
        unit: Literal["line", "file"] | None = None,
        padding: bool = True,
        padding_id: int = 0,
        with_lengths: bool = False,
        blank_lines: bool = False,
        suffixes: tuple[str, ...] = TEXT_SUFFIXES,
        **settings: Unpack[KeepingSettings],
    ) -> None:
        if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1:
            raise SpecError(f"max_length is a number of ids, at least 1, got {max_length!r}")
        if tokenizer is not None and not callable(tokenizer):
            raise SpecError(f"tokenizer is called with a text and gives its ids, got {type(tokenizer).__qualname__}")
        if unit not in (None, "line", "file"):
            raise SpecError(f"unit must be 'line' or 'file', got {unit!r}")
        path = existing_path(data_path)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.padding = padding
        self.padding_id = padding_id
        self.with_lengths = with_lengths
        self.unit = unit or ("line" if path.is_file() else "file")
        files = [path] if path.is_file() else _text_files(path, suffixes)
        self.classes, labels = class_numbers(files, path, kind="texts", way_out="move it, or choose by suffixes=")
        self._labels: npt.NDArray[np.int64] = labels
        self._index: TextIndex = (
            index_files(files) if self.unit == "file" else index_lines(files, blank_lines=blank_lines)
        )
        if not len(self._index):
            raise DatasetError(f"there must be some text to read, got {path} with nothing but empty lines")
        super().__init__(path, loading_mode=loading_mode, **settings)

    def __len__(self) -> int:
        return len(self._index)

    def read(self, index: int) -> Raw:
        """Give the bytes of one text, its label and the number of its first line."""
        file, start, size, line = self._index.extent(self._place(index))
        path = path_at(self._index.paths, file)
        if size > MAX_TEXT_BYTES:
            raise SampleError(
                f"the text has {format_bytes(size)}, and at most {format_bytes(MAX_TEXT_BYTES)} are read in one piece; "
                "read it line by line by unit='line'",
                path,
            )
        try:
            with open(path, "rb") as opened:  # noqa: PTH123  # paths come as text from arrays
                opened.seek(start)
                data = opened.read(size)
        except OSError as error:
            raise SampleError(f"the text cannot be read: {error}", path) from error
        if len(data) < size:
            raise SampleError(
                f"the text from byte {start} on has {size} bytes, and {len(data)} are left: the file became shorter "
                "since the dataset was made; make it anew",
                path,
            )
        return data, str(int(self._labels[file])).encode(), str(line).encode()

    def decode(self, raw: Raw) -> tuple[torch.Tensor, ...]:
        """Turn the bytes of a text into a sample before the transforms."""
        ids = self._ids_of(raw)
        length = len(ids)
        if self.padding and length < self.max_length:
            ids = torch.nn.functional.pad(ids, (0, self.max_length - length), value=self.padding_id)
        sample = ids, torch.tensor(int(bytes(raw[1])))
        return (*sample, torch.tensor(length)) if self.with_lengths else sample

    def length_of(self, index: int) -> int:
        """Give how many ids a sample has before it is padded."""
        with naming(self.path_of(index)):
            return len(self._ids_of(self.read(index)))

    def path_of(self, index: int) -> str:
        """Give the path of the file behind a sample."""
        return path_at(self._index.paths, self._index.extent(self._place(index))[0])

    def line_of(self, index: int) -> int:
        """Give the number of the first line of a sample in its file, counted from 1."""
        return self._index.extent(self._place(index))[3]

    def source_paths(self) -> Iterator[str]:
        """Give every file behind the dataset."""
        return (path_at(self._index.paths, number) for number in range(len(self._index.paths)))

    def sample_structure(self) -> str | None:
        """Declare the structure of a sample, where every text has one length."""
        if not self.padding or self.augments_samples:
            return None
        return f"(int64[{self.max_length}], int64[]{', int64[]' if self.with_lengths else ''})"

    def _ids_of(self, raw: Raw) -> torch.Tensor:
        """Give the ids of a text without padding."""
        text = _as_text(bytes(raw[0]), int(bytes(raw[2])))
        return self._ids(text.removesuffix("\n").removesuffix("\r") if self.unit == "line" else text)

    def _ids(self, text: str) -> torch.Tensor:
        if self.tokenizer is None:
            points = np.frombuffer(text[: self.max_length].encode("utf-32-le"), dtype="<u4")
            return torch.from_numpy(points.astype(np.int64))
        found = self.tokenizer(text)
        ids = found["input_ids"] if isinstance(found, Mapping) or hasattr(found, "input_ids") else found
        return _whole_numbers(ids)[: self.max_length]


def _whole_numbers(ids: Any) -> torch.Tensor:
    """Give what a tokenizer gave as int64 `(length,)`.

    Raises:
        SampleError: It is something else.
    """
    try:
        listed = np.asarray(ids if isinstance(ids, torch.Tensor | np.ndarray) else list(ids))
    except (TypeError, ValueError) as error:  # a single value, or lists of different lengths
        raise SampleError(f"a tokenizer gives a sequence of whole numbers, got {ids!r:.80}: {error}") from error
    if not listed.size:
        return torch.zeros(0, dtype=torch.int64)
    if listed.ndim != 1 or listed.dtype.kind not in "biu":
        raise SampleError(
            f"a tokenizer gives a sequence of whole numbers, got {listed.dtype} with {listed.ndim} dimensions: "
            f"{ids!r:.80}"
        )
    return torch.from_numpy(listed.astype(np.int64))


def _as_text(data: bytes, line: int) -> str:
    try:
        return data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        bad = line + error.object.count(b"\n", 0, error.start)  # without a mark of byte order, from where it counts
        raise SampleError(
            f"line {bad} is not UTF-8: {error.reason}, got the byte 0x{error.object[error.start]:02x}; write it as "
            "UTF-8, or leave such texts out by on_broken='skip'"
        ) from error


def _text_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    found = visible_files(folder, suffixes)
    if not found:
        raise DatasetError(f"there is no text under {folder} ({', '.join(suffixes)}); name other ends by suffixes=")
    return found


__all__ = ["MAX_TEXT_BYTES", "TEXT_SUFFIXES", "TextDataset", "Tokenizer"]
