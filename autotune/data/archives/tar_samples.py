"""Samples of a single tar: pairs of files written into it, and members decoded out of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from autotune.data.archives.foreign_tar import part_names
from autotune.data.archives.member_decoding import decode_member
from autotune.data.archives.tar_index import NO_LEAVES
from autotune.data.archives.tar_opening import OpenedTar
from autotune.data.archives.tar_writer import Parts
from autotune.errors import ArchiveError, SampleError

_MASK = re.compile(r"(?<![a-z])(masks?|labels?|gt|targets?|seg(mentation)?s?)(?![a-z])", re.IGNORECASE)
_RASTERS = frozenset({"tif", "tiff", "png", "jpg", "jpeg"})


class PairFiles(Dataset[tuple[bytes, bytes]]):
    """Original bytes of pairs of files.

    Args:
        image_paths: Images.
        mask_paths: Masks, one for each image.
    """

    def __init__(
        self, image_paths: Sequence[str | os.PathLike[str]], mask_paths: Sequence[str | os.PathLike[str]]
    ) -> None:
        self._pairs = [(os.fspath(image), os.fspath(mask)) for image, mask in zip(image_paths, mask_paths, strict=True)]
        # Files of one name from several folders get a folder each.
        self._distinct = all(
            len({Path(path).name for path in paths}) == len(paths) for paths in zip(*self._pairs, strict=True)
        )

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[bytes, bytes]:
        image, mask = (_file_bytes(path) for path in self._pairs[index])
        return image, mask

    def names(self, index: int) -> tuple[str, str]:
        """Give the names of a pair inside the tar."""
        image, mask = (Path(path).name for path in self._pairs[index])
        own = "" if self._distinct else f"{index:08d}/"
        return f"images/{own}{image}", f"masks/{own}{mask}"


def pair_parts(source: PairFiles, index: int) -> Parts:
    """Give the members of a pair."""
    return NO_LEAVES, list(zip(source.names(index), source[index], strict=True))


class SampleDecoder(Dataset[Any]):
    """Turns what a tar holds into samples.

    Args:
        opened: The tar.
        decode: The caller's own, for tuples of original bytes.
    """

    def __init__(self, opened: OpenedTar, decode: Callable[[tuple[bytes, ...]], Any] | None) -> None:
        self._opened = opened
        self._decode = decode

    def __len__(self) -> int:
        return len(self._opened.reader)

    def __getitem__(self, index: int) -> Any:
        return self.decode_stored(self._opened.reader[index], index % len(self))

    def decode_stored(self, stored: Any, index: int) -> Any:
        """Turn one stored sample into what the dataset gives.

        Raises:
            SampleError: It cannot be decoded; carries the path of the tar.
            ArchiveError: A member of a foreign tar is broken or pickled; the message has the path.
        """
        kind = self._opened.kind
        if kind == "decoded":
            return stored
        if self._decode is not None:
            return self._decode(stored)
        if kind == "encoded":
            return stored
        try:
            return self._pair(stored) if kind == "pairs" else self._foreign(stored, index)
        except SampleError as error:
            raise SampleError(f"sample {index}: {error.message}", str(self._opened.path)) from error

    def _foreign(self, stored: tuple[bytes, ...], index: int) -> Any:
        names = part_names(self._opened.reader.index, index)
        masks = [bool(_MASK.search(name)) for name in names]
        if len(names) == 2 and sum(masks) == 1 and all(_ending(name) in _RASTERS for name in names):
            return self._pair(stored if masks[1] else stored[::-1])
        key = self._opened.keys[index]
        try:
            members = {name: decode_member(name, data) for name, data in zip(names, stored, strict=True)}
        except ArchiveError as error:
            raise type(error)(f"{self._opened.path}: sample {key!r}: {error}") from error
        return {"__key__": key, **members}

    def _pair(self, stored: tuple[bytes, ...]) -> Any:
        return self._pairs.decode(stored)

    @cached_property
    def _pairs(self) -> Any:
        from autotune.data.datasets.raster import GeoTiffPairDataset

        return GeoTiffPairDataset((), ())


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _file_bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SampleError(f"the file cannot be read: {error}", path) from error
