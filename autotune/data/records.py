"""One sample as one block of bytes, for stores that keep a value for each key; nothing is pickled.

A block is a header and the bytes of each array, each from a multiple of 16 on:

    magic (4) | length of the header (4, little endian) | CRC-32 of the rest (4) | 4 zeros | header | arrays

The header is JSON: the skeleton, and dtype and shape of each array (`autotune.data.samples`). A block of
original bytes (`encoded`) has the parts' sizes there instead.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from autotune.data.batch_buffers import BatchBuffers
from autotune.data.fixed_layout import ByteBlock, FixedLayout, row_of
from autotune.data.samples import Leaf, Skeleton, put_together, take_apart
from autotune.errors import ArchiveDamagedError

_MAGIC_SAMPLE = b"ATS1"
_MAGIC_PARTS = b"ATP1"
_HEAD = struct.Struct("<4sII4x")
_ALIGNMENT = 16
_ARRAY_KINDS = "biufcSUmM"
_BROKEN = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RuntimeError, StopIteration)
"""What comes of a header that was changed, or nested without end."""


def pack_sample(sample: Any) -> bytes:
    """Turn a sample into one block.

    Raises:
        ArchiveError: Some part is of a type that cannot be given back exactly.
    """
    skeleton, leaves = take_apart(sample)
    header = json.dumps([skeleton, [[leaf.dtype.str, *leaf.shape] for leaf in leaves]], separators=(",", ":"))
    return _block(_MAGIC_SAMPLE, header.encode(), [row_of(leaf).data for leaf in leaves])


def pack_parts(parts: Sequence[bytes]) -> bytes:
    """Turn original bytes into one block."""
    return _block(_MAGIC_PARTS, json.dumps([len(part) for part in parts]).encode(), parts)


def unpack(block: bytes | memoryview, *, check: bool = False) -> Any:
    """Rebuild a sample, or a tuple of original bytes, as fresh objects.

    Args:
        block: The block, of exactly its length.
        check: Whether the checksum is compared too.

    Raises:
        ArchiveDamagedError: The block is not one, or fails its check.
    """
    view = memoryview(block)
    try:
        magic, header_bytes, checksum = _HEAD.unpack_from(view)
    except struct.error as error:
        raise ArchiveDamagedError(f"a stored sample is cut off: {error}; build it again") from error
    if check and zlib.crc32(view[_HEAD.size :]) != checksum:
        raise ArchiveDamagedError("a stored sample does not match its checksum; build it again")
    header = bytes(view[_HEAD.size : _HEAD.size + header_bytes])
    if len(header) != header_bytes:
        raise ArchiveDamagedError(f"a stored sample has {len(view)} bytes and ends in its header; build it again")
    start = _aligned(_HEAD.size + header_bytes)
    if magic == _MAGIC_SAMPLE:
        try:
            return _sample(view, header, start)
        except _BROKEN as error:
            raise ArchiveDamagedError(f"a stored sample cannot be put together: {error}; build it again") from error
    if magic == _MAGIC_PARTS:
        return _parts(view, header, start)
    raise ArchiveDamagedError(f"a stored sample begins with {magic!r}, which is none of ours; build it again")


def unpack_all(blocks: Sequence[memoryview], buffers: BatchBuffers) -> list[Any]:
    """Rebuild the samples of a whole batch, gathered at once into `buffers` where they share a layout.

    Raises:
        ArchiveDamagedError: A block is not one.
    """
    header = _common_header(blocks)
    if header is None:
        return [unpack(block) for block in blocks]
    layout, extents = _layout_plan(header, len(blocks[0]))

    def copy(place: int, out: ByteBlock) -> None:
        first, last = extents[place]
        size = last - first
        rows = memoryview(out.reshape(-1))  # type: ignore[arg-type]  # numpy's types leave the buffer out
        for row, block in enumerate(blocks):
            rows[row * size : (row + 1) * size] = block[first:last]

    try:
        return layout.collect(len(blocks), copy, buffers)
    except _BROKEN as error:
        raise ArchiveDamagedError(f"stored samples cannot be put together: {error}; build them again") from error


def _common_header(blocks: Sequence[memoryview]) -> bytes | None:
    """Give the header that all blocks of a batch have, where they are samples of one length."""
    if not blocks or len(blocks[0]) < _HEAD.size:
        return None
    size = len(blocks[0])
    magic, header_bytes, _ = _HEAD.unpack_from(blocks[0])
    start = bytes(blocks[0][:8])
    header = bytes(blocks[0][_HEAD.size : _HEAD.size + header_bytes])
    if magic != _MAGIC_SAMPLE or len(header) != header_bytes:
        return None
    end = _HEAD.size + header_bytes
    for block in blocks[1:]:
        if len(block) != size or bytes(block[:8]) != start or bytes(block[_HEAD.size : end]) != header:
            return None
    return header


@lru_cache(maxsize=256)
def _layout_plan(header: bytes, size: int) -> tuple[FixedLayout, tuple[tuple[int, int], ...]]:
    skeleton, places, end = _sample_plan(header, _aligned(_HEAD.size + len(header)))
    if end != size:
        raise ArchiveDamagedError(f"a stored sample must have {end} bytes, got {size}; build it again")
    text = json.dumps(skeleton, separators=(",", ":"))
    layout = FixedLayout(text, tuple(place[0].str for place in places), tuple(place[1] for place in places))
    return layout, tuple((first, last) for _, _, first, last in places)


def _block(magic: bytes, header: bytes, pieces: Sequence[bytes | memoryview]) -> bytes:
    rest = bytearray(header)
    for piece in pieces:
        rest += bytes(_aligned(_HEAD.size + len(rest)) - _HEAD.size - len(rest))
        rest += piece
    return _HEAD.pack(magic, len(header), zlib.crc32(rest)) + bytes(rest)


def _sample(view: memoryview, header: bytes, start: int) -> Any:
    skeleton, places, end = _sample_plan(header, start)
    if end != len(view):
        raise ArchiveDamagedError(f"a stored sample must have {end} bytes, got {len(view)}; build it again")
    leaves: list[Leaf] = [
        np.ndarray(shape, dtype, bytearray(view[first:last])) if last > first else np.empty(shape, dtype)
        for dtype, shape, first, last in places
    ]
    return put_together(skeleton, leaves)


def _parts(view: memoryview, header: bytes, start: int) -> tuple[bytes, ...]:
    extents, end = _parts_plan(header, start)
    if end != len(view):
        raise ArchiveDamagedError(f"a stored sample must have {end} bytes, got {len(view)}; build it again")
    return tuple([bytes(view[first:last]) for first, last in extents])


@lru_cache(maxsize=4096)
def _parts_plan(header: bytes, start: int) -> tuple[tuple[tuple[int, int], ...], int]:
    try:
        sizes = [int(size) for size in json.loads(header)]
    except _BROKEN as error:
        raise ArchiveDamagedError(f"a stored sample has a broken header: {error}; build it again") from error
    if min(sizes, default=0) < 0:
        raise ArchiveDamagedError(f"a stored sample has parts of less than 0 bytes: {header!r}; build it again")
    extents = []
    end = start if sizes else _HEAD.size + len(header)
    for size in sizes:
        first = _aligned(end)
        end = first + size
        extents.append((first, end))
    return tuple(extents), end


_Place = tuple[np.dtype[Any], tuple[int, ...], int, int]


@lru_cache(maxsize=4096)  # most samples of a dataset share their header
def _sample_plan(header: bytes, start: int) -> tuple[Skeleton, tuple[_Place, ...], int]:
    try:
        text, described = json.loads(header)
        skeleton: Skeleton = json.loads(text)
        places: list[_Place] = []
        end = start if described else _HEAD.size + len(header)
        for name, *shape in described:
            dtype = np.dtype(name)
            first = _aligned(end)
            end = first + dtype.itemsize * int(np.prod(shape, dtype=object))
            places.append((dtype, tuple(shape), first, end))
        sound = not any(place[0].kind not in _ARRAY_KINDS or min(place[1], default=0) < 0 for place in places)
    except _BROKEN as error:
        raise ArchiveDamagedError(f"a stored sample has a broken header: {error}; build it again") from error
    if not sound:
        raise ArchiveDamagedError(f"a stored sample has arrays that none of ours has: {header!r}; build it again")
    return skeleton, tuple(places), end


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
