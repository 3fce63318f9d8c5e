"""Tars that others wrote: their members grouped to samples, and an index like ours over them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from autotune.data.archives.tar_index import IndexBuilder, IndexedBlock, IndexedSample, TarIndex
from autotune.data.archives.tar_scan import Member, TarLimits, file_members
from autotune.errors import ArchiveError
from autotune.units import KIB, format_bytes

PART_SEPARATOR = "\0"
"""Stands between the names of a sample's members where our own archives have a skeleton."""

_META = re.compile(r"__[^/]*__($|/)")
_KEY = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")
_SLACK_BYTES = 64 * KIB


class ForeignIndex(NamedTuple):
    """The samples of foreign tars.

    Attributes:
        table: Where their members are.
        keys: What the members of each sample have in common in their names.
    """

    table: TarIndex
    keys: tuple[str, ...]

    def part_names(self, sample: int) -> tuple[str, ...]:
        """Give the names of a sample's members, each without the key."""
        return part_names(self.table, sample)


def part_names(index: TarIndex, sample: int) -> tuple[str, ...]:
    """Give the names of a foreign sample's members."""
    return tuple(index.skeletons[int(index.samples[sample, 2])].split(PART_SEPARATOR))


def index_foreign(files: Sequence[Path], limits: TarLimits, *, by_folder: bool = False) -> ForeignIndex:
    """Index plain tars by one scan of their headers.

    The members of a sample have one name up to the first dot, as the `webdataset` package has it.

    Args:
        files: The tars.
        limits: How large a sample may be.
        by_folder: Whether files of one name in several folders, and nothing else, are one sample.

    Raises:
        ArchiveError: A member is refused, a sample is too large, or there is none.
    """
    builder, keys, scattered = IndexBuilder(), list[str](), False
    for number, path in enumerate(files):
        members = [member for member in file_members(path) if not _META.match(member.name)]
        grouped = _grouped(members, _dotted)
        if by_folder and grouped and all(len(parts) == 1 for parts in grouped.values()):
            grouped = _folders(members) or grouped
        for key, parts in grouped.items():
            first, span, held = _extent(parts)
            if held > limits.sample_bytes:
                raise ArchiveError(
                    f"{path}: sample {key!r} has {format_bytes(held)}, and at most "
                    f"{format_bytes(limits.sample_bytes)} are read at once"
                )
            scattered |= span > 2 * held + _SLACK_BYTES
            extents = [(member.offset - first, member.size) for _, member in parts]
            names = PART_SEPARATOR.join(name for name, _ in parts)
            builder.add(number, first, IndexedBlock(span, span, [IndexedSample(names, extents)]))
            keys.append(key)
    if not keys:
        raise ArchiveError(f"{', '.join(map(str, files[:3]))}: no samples, as no member is named <key>.<part>")
    return ForeignIndex(builder.finish({"scattered": scattered}), tuple(keys))


_Parts = list[tuple[str, Member]]


def _grouped(members: Iterable[Member], split: Callable[[str], tuple[str, str] | None]) -> dict[str, _Parts]:
    """Group members by key, each group in the order of the file."""
    groups: dict[str, _Parts] = {}
    for member in members:
        found = split(member.name)
        if found is not None:
            groups.setdefault(found[0], []).append((found[1], member))
    return groups


def _dotted(name: str) -> tuple[str, str] | None:
    found = _KEY.fullmatch(name)
    return None if found is None else (found[1], found[2])


def _in_folder(name: str) -> tuple[str, str] | None:
    folder, _, rest = name.rpartition("/")
    found = _KEY.fullmatch(rest)
    return None if found is None or not folder else (found[1], f"{folder.rpartition('/')[2]}.{found[2]}")


def _folders(members: list[Member]) -> dict[str, _Parts] | None:
    """Group by file name over folders, where each folder has every name."""
    groups = _grouped(members, _in_folder)
    sizes = Counter(len(parts) for parts in groups.values())
    distinct = all(len({name for name, _ in parts}) == len(parts) for parts in groups.values())
    return groups if len(sizes) == 1 and min(sizes) > 1 and distinct else None


def _extent(parts: _Parts) -> tuple[int, int, int]:
    """Give first byte, span and bytes of a sample."""
    places = np.array([(member.offset, member.offset + member.size) for _, member in parts], dtype=np.int64)
    first = int(places[:, 0].min())
    return first, int(places[:, 1].max()) - first, int((places[:, 1] - places[:, 0]).sum())
