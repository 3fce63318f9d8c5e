"""Shards that the `webdataset` package or any other program wrote, read at random."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from autotune.data.archives.foreign_tar import index_foreign
from autotune.data.archives.inflating import compression_of, inflated_copy, inflated_folder
from autotune.data.archives.member_decoding import decode_member
from autotune.data.archives.tar_reader import TarReader
from autotune.data.archives.tar_scan import TarLimits
from autotune.errors import ArchiveError


class WebShards(Dataset[dict[str, Any]]):
    """Samples of webdataset shards, by number in the order of the shards, or by key.

    A sample is a dict of `__key__` and its members by the rest of their names (`jpg`, `seg.png`), decoded by
    their ends or as bytes. Headers are scanned once; nothing is extracted, and nothing is unpickled.

    Args:
        shards: Paths, or a pattern (`shard-*.tar`).
        decode: Whether members are decoded (`autotune.data.archives.member_decoding`); else they are bytes.
        cache_dir: Folder that compressed shards are inflated into; None is the one under autotune's home.
        limits: How far a shard may go.

    Raises:
        ArchiveError: There is no shard, or a member is refused.
    """

    # What follows from the paths: files that are open by now, and numbers of the process.
    unfingerprinted = ("_index", "_reader", "_numbers", "_counts")

    def __init__(
        self,
        shards: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        decode: bool = True,
        cache_dir: str | os.PathLike[str] | None = None,
        limits: TarLimits | None = None,
    ) -> None:
        self.paths = _found(shards)
        self.decode = decode
        limits = limits or TarLimits()
        packed = [(Path(path), compression_of(Path(path))) for path in self.paths]
        plain = [
            path if kind is None else inflated_copy(path, kind, inflated_folder(cache_dir), limits)
            for path, kind in packed
        ]
        self._index = index_foreign(plain, limits)
        self._reader = TarReader(plain, self._index.table, stored="encoded")

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, key: int | str) -> dict[str, Any]:
        number = self._number(key) if isinstance(key, str) else key
        parts = self._reader[number]
        number %= len(self)
        names = self._index.part_names(number)
        sample: dict[str, Any] = {"__key__": self._index.keys[number]}
        for name, data in zip(names, parts, strict=True):
            sample[name] = self._decoded(number, name, data) if self.decode else data
        return sample

    def keys(self) -> tuple[str, ...]:
        """Give the keys of all samples in order."""
        return self._index.keys

    def source_paths(self) -> list[str]:
        """Give the shards."""
        return list(self.paths)

    def _decoded(self, number: int, name: str, data: bytes) -> Any:
        try:
            return decode_member(name, data)
        except ArchiveError as error:
            path = self.paths[self._index.table.file_of(number)]
            raise type(error)(f"{path}: sample {self._index.keys[number]!r}: {error}") from error

    def _number(self, key: str) -> int:
        count = self._counts[key]
        if count > 1:
            raise ArchiveError(f"key {key!r} stands for {count} samples, in several shards; take them by number")
        try:
            return self._numbers[key]
        except KeyError:
            raise KeyError(f"no sample has the key {key!r}") from None

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(self._index.keys)}

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter(self._index.keys)


def _found(shards: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    if isinstance(shards, str | os.PathLike):
        pattern = os.fspath(shards)
        paths = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]  # noqa: PTH207  # any folder
    else:
        paths = [os.fspath(path) for path in shards]
    if not paths:
        raise ArchiveError(f"no shard is found for {shards!r}")
    return tuple(paths)
