"""Members of a tar that anybody may have written, found without trusting it; nothing is ever extracted to a path."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from autotune.errors import ArchiveDamagedError, ArchiveError
from autotune.units import GIB, KIB, MIB, format_bytes

_NAME_BYTES_MAX = 4 * KIB
_PAX_BYTES_MAX = 64 * KIB
_MEMBERS_MAX = 20_000_000
_DRIVE = re.compile(r"[A-Za-z]:")
_REFUSED = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    tarfile.GNUTYPE_LONGLINK: "a link with a long name",
}
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)

Read = Callable[[int, int], bytes]
"""Gives bytes at an offset, and of a size."""


@dataclass(frozen=True, kw_only=True)
class TarLimits:
    """How far a tar from elsewhere may go.

    Attributes:
        sample_bytes: Most bytes of one sample, inflated.
        inflated_bytes: Most bytes that a whole archive may inflate to on disk; None is nine tenths of the free disk.
        ratio: Most bytes that one stored byte may inflate to.
        free_bytes: Bytes that a few stored ones may inflate to in any case, as empty masks do.
    """

    sample_bytes: int = 4 * GIB
    inflated_bytes: int | None = None
    ratio: float = 200.0
    free_bytes: int = 256 * MIB

    def check(self, where: str, stored_bytes: int, inflated_bytes: int) -> None:
        """Refuse what inflates to more than the ratio allows.

        Raises:
            ArchiveError: It does.
        """
        allowed = self.free_bytes + int(self.ratio * stored_bytes)
        if inflated_bytes > allowed:
            raise ArchiveError(
                f"{where}: {format_bytes(stored_bytes)} inflate to more than {format_bytes(allowed)}, which at "
                f"{self.ratio:g} to 1 looks like a bomb; raise limit_ratio if the archive may be trusted"
            )


class Member(NamedTuple):
    """One file of a tar: its name, where its bytes are, and where its headers begin."""

    name: str
    offset: int
    size: int
    header: int


class _Pax(NamedTuple):
    name: str | None = None
    size: int | None = None


def tar_members(read: Read, end: int, *, where: str, seen: set[str] | None = None) -> Iterator[Member]:
    """Give the plain files of a tar in order, up to its end mark.

    Args:
        read: Reads the tar.
        end: Its size.
        where: What messages name the archive.
        seen: Names that were met before; new ones are added.

    Raises:
        ArchiveError: A member is no plain file or folder, has a name that leads elsewhere, or comes twice.
        ArchiveDamagedError: A header is broken, or the tar is cut off.
    """
    names: set[str] = set() if seen is None else seen
    offset, begin, told = 0, 0, _Pax()
    while offset < end:
        block = read(offset, tarfile.BLOCKSIZE)
        if len(block) == tarfile.BLOCKSIZE and not any(block):
            return
        header = _header(block, where)
        plain = header.type in _PLAIN
        size = told.size if plain and told.size is not None else header.size
        data = offset + tarfile.BLOCKSIZE
        offset = data + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if size < 0 or data + size > end:
            raise ArchiveDamagedError(
                f"{where}: member {_shown(header.name)} declares {size} bytes, and the archive ends before"
            )
        if header.type == tarfile.GNUTYPE_LONGNAME:
            told = told._replace(name=_long_name(read(data, min(size, _NAME_BYTES_MAX + 1)), where))
        elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE):
            pax = _pax(read(data, min(size, _PAX_BYTES_MAX + 1)), where, header)
            told = told if header.type == tarfile.XGLTYPE else pax
        else:
            name = _checked_name(told.name or header.name, names, where)
            if plain:
                yield Member(name, data, size, begin)
            elif header.type != tarfile.DIRTYPE:
                what = _REFUSED.get(header.type, f"of an unknown kind {header.type!r}")
                raise ArchiveError(f"{where}: member {_shown(name)} is {what}, and only plain files are read")
            begin, told = offset, _Pax()


def file_reader(file: io.FileIO) -> Read:
    """Give what reads an open file at offsets."""
    return lambda offset, size: os.pread(file.fileno(), size, offset)


def bytes_reader(data: bytes) -> Read:
    """Give what reads bytes in memory at offsets."""
    return lambda offset, size: data[offset : offset + size]


def file_members(path: Path) -> list[Member]:
    """Give the members of a plain tar."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        return list(tar_members(file_reader(file), size, where=str(path)))


def _header(block: bytes, where: str) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError) as error:
        raise ArchiveDamagedError(
            f"{where}: a member's header is broken or cut off: {error}; give a whole tar, plain or compressed by "
            "gz, xz or zst"
        ) from error


def _long_name(data: bytes, where: str) -> str:
    if len(data) > _NAME_BYTES_MAX:
        raise ArchiveError(f"{where}: a member's name has more than {_NAME_BYTES_MAX} bytes, {_shown(data[:60])}...")
    return data.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _pax(data: bytes, where: str, header: tarfile.TarInfo) -> _Pax:
    """Read the extended header before a member: its name and size, and nothing that would make it a link or sparse."""
    if len(data) > _PAX_BYTES_MAX:
        raise ArchiveError(f"{where}: the extended header {_shown(header.name)} has more than {_PAX_BYTES_MAX} bytes")
    found, place = _Pax(), 0
    try:
        while place < len(data) and data[place : place + 1] != b"\0":
            space = data.index(b" ", place)
            length = int(data[place:space])
            if length <= space - place or place + length > len(data):
                raise ArchiveDamagedError(f"{where}: the extended header {_shown(header.name)} is broken")
            key, _, value = data[space + 1 : place + length - 1].partition(b"=")
            place += length
            found = _pax_record(found, key, value, where)
    except ValueError as error:
        raise ArchiveDamagedError(f"{where}: the extended header {_shown(header.name)} is broken: {error}") from error
    if header.type == tarfile.XGLTYPE and found != _Pax():
        raise ArchiveError(f"{where}: a header for all members gives them one name or size")
    return found


def _pax_record(found: _Pax, key: bytes, value: bytes, where: str) -> _Pax:
    if key.startswith(b"GNU.sparse"):
        raise ArchiveError(f"{where}: a sparse member {_shown(value)}, and only plain files are read")
    if key == b"linkpath":
        raise ArchiveError(f"{where}: a link to {_shown(value)}, and only plain files are read")
    if key == b"path":
        return found._replace(name=_long_name(value, where))
    return found._replace(size=int(value)) if key == b"size" else found


def _checked_name(name: str, names: set[str], where: str) -> str:
    parts = name.replace("\\", "/").split("/")
    if not name or "\0" in name or parts[0] == "" or ".." in parts or _DRIVE.match(name):
        raise ArchiveError(f"{where}: member {_shown(name)} has a name that leads outside the archive; it is refused")
    while name.startswith("./"):
        name = name[2:]
    name = name.rstrip("/")
    if name in names:
        raise ArchiveError(f"{where}: member {_shown(name)} comes twice, and which one is meant cannot be told")
    if len(names) >= _MEMBERS_MAX:
        raise ArchiveError(f"{where}: more than {_MEMBERS_MAX:,} members; divide the archive into shards")
    names.add(name)
    return name


def _shown(name: str | bytes) -> str:
    text = repr(name)
    return text if len(text) <= 120 else f"{text[:117]}..."
