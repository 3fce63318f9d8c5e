"""The index of one of our tars, rebuilt by one scan where it is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from autotune.data.archives.block_stream import inflate_pieces
from autotune.data.archives.compression import CODECS
from autotune.data.archives.tar_file import FOOTER_NAME, HEADER_NAME, check_header
from autotune.data.archives.tar_index import IndexBuilder, IndexedBlock, IndexedSample, TarIndex
from autotune.data.archives.tar_scan import Member, TarLimits, bytes_reader, file_reader, tar_members
from autotune.errors import ArchiveDamagedError, ArchiveError
from autotune.units import MIB, format_bytes

_FOOTER_BYTES_MAX = 512 * MIB
_SAMPLES_MAX = 50_000_000


class _Frame(NamedTuple):
    """One block of the file: where it lies, what it inflates to, and its members with offsets inside.

    A plain tar has a frame for each member, with its offset in the file, and data where we read them.
    """

    offset: int
    stored_bytes: int
    data: bytes
    members: list[Member]


class _Found(NamedTuple):
    """A member of a sample, and its frame: offset, size and inflated size."""

    frame: tuple[int, int, int]
    member: Member


def is_ours(path: Path, compression: str | None) -> bool:
    """Tell by its first member whether an archive is one of ours."""
    with path.open("rb") as file:
        start = file.read(512) if compression is None else _first_piece(path, compression)[:512]
    return start.startswith(HEADER_NAME.encode() + b"\0")


def rebuilt_index(path: Path, compression: str | None, limits: TarLimits) -> TarIndex:
    """Scan an archive of ours and give its index.

    Raises:
        ArchiveError: A member is refused, or a block inflates beyond the limits.
        ArchiveDamagedError: The archive is cut off or contradicts itself.
    """
    frames = _plain_frames(path) if compression is None else _packed_frames(path, compression, limits)
    header: Any = None
    found: list[_Found] = []
    for frame in frames:
        place = (frame.offset, frame.stored_bytes, len(frame.data))
        for member in frame.members:
            if member.name == HEADER_NAME:
                header = _parsed(frame, member, path)
            elif member.name == FOOTER_NAME:
                check_header(header, str(path))
                footer = _parsed(frame, member, path)
                notes = {**header, "tail_offset": frame.offset, "sha256": footer.get("sha256")}
                return _dealt(path, found, footer, plain=compression is None).finish(notes)
            else:
                found.append(_Found(place, member))
    raise ArchiveDamagedError(f"{path} is cut off: it does not end with {FOOTER_NAME}")


def _plain_frames(path: Path) -> Iterator[_Frame]:
    with path.open("rb", buffering=0) as file:
        read = file_reader(file)
        for member in tar_members(read, os.fstat(file.fileno()).st_size, where=str(path)):
            if member.name in (HEADER_NAME, FOOTER_NAME):
                data = read(member.offset, min(member.size, _FOOTER_BYTES_MAX))
                yield _Frame(member.header, member.size, data, [member._replace(offset=0)])
            else:
                yield _Frame(0, 0, b"", [member])


def _packed_frames(path: Path, compression: str, limits: TarLimits) -> Iterator[_Frame]:
    seen: set[str] = set()
    start, whole = 0, bytearray()
    with path.open("rb") as file:
        for piece in inflate_pieces(file, CODECS[compression]):
            whole += piece.data
            limits.check(str(path), piece.stored_end - start, len(whole))
            if len(whole) > limits.sample_bytes:
                raise ArchiveError(f"{path}: a block inflates to more than {format_bytes(limits.sample_bytes)}")
            if piece.ends_block:
                data = bytes(whole)
                members = list(tar_members(bytes_reader(data), len(data), where=str(path), seen=seen))
                if not members:
                    return
                yield _Frame(start, piece.stored_end - start, data, members)
                start, whole = piece.stored_end, bytearray()


def _dealt(path: Path, found: list[_Found], footer: Any, *, plain: bool) -> IndexBuilder:
    """Deal the members out to samples, as the footer counts them."""
    builder, place = IndexBuilder(), 0
    frame, waiting = (found[0].frame if found else (0, 0, 0)), list[IndexedSample]()
    try:
        if sum(repeats for _, _, repeats in footer["runs"]) != footer["count"] or footer["count"] > _SAMPLES_MAX:
            raise ArchiveDamagedError(f"{path} contradicts itself about the number of its samples")
        for skeleton, count, repeats in footer["runs"]:
            for _ in range(repeats):
                own = found[place : place + count]
                if len(own) != count or len({one.frame for one in own}) > 1:
                    raise ArchiveDamagedError(f"{path} has fewer members than it says, or cuts samples in two")
                place += count
                if own and (plain or own[0].frame != frame):
                    _flush(builder, frame, waiting)
                    frame, waiting = own[0].frame, []
                start = own[0].member.header if own and plain else 0
                if own and plain:
                    span = own[-1].member.offset + own[-1].member.size - start
                    frame = (start, span, span)
                extents = [(one.member.offset - start, one.member.size) for one in own]
                waiting.append(IndexedSample(footer["skeletons"][skeleton], extents))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ArchiveDamagedError(f"{path}: what it says of its samples is broken: {error}") from error
    _flush(builder, frame, waiting)
    if place != len(found):
        raise ArchiveDamagedError(f"{path} has other members than it says; build the archive anew")
    return builder


def _flush(builder: IndexBuilder, frame: tuple[int, int, int], samples: list[IndexedSample]) -> None:
    offset, stored, inflated = frame
    if samples:
        builder.add(0, offset, IndexedBlock(stored, inflated, samples))


def _parsed(frame: _Frame, member: Member, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(frame.data[member.offset : member.offset + member.size])
    except (ValueError, RecursionError) as error:
        raise ArchiveDamagedError(f"{path}: {member.name} is broken: {error}") from error
    if not isinstance(value, dict):
        raise ArchiveDamagedError(f"{path}: {member.name} holds no description")
    return value


def _first_piece(path: Path, compression: str) -> bytes:
    with path.open("rb") as file:
        try:
            return next(iter(inflate_pieces(file, CODECS[compression]))).data
        except (StopIteration, ArchiveDamagedError):
            return b""
