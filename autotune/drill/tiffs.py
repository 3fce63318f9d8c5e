"""TIFF files written tag by tag, so that they can be as odd as those of others."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHORT, _LONG, _DOUBLE, _TEXT = (3, "H"), (4, "I"), (12, "d"), (2, "s")
_FLOAT, _UNSIGNED = 3, 1
_KINDS = {256: _LONG, 257: _LONG, 258: _SHORT, 259: _SHORT, 262: _SHORT, 273: _LONG, 277: _SHORT, 278: _LONG,
          279: _LONG, 339: _SHORT, 34264: _DOUBLE, 42113: _TEXT}  # fmt: skip
"""Type of each tag that is written: size, bits, compression, colours, strip, bands, rows, bytes, format, and GDAL's."""
_HEADER_BYTES = 8
CMYK = 5


def write_tiff(
    path: Path,
    pixels: NDArray[Any],
    *,
    bits: int | None = None,
    nodata: str | None = None,
    colours: int = 1,
    transform: tuple[float, ...] | None = None,
    claimed: Mapping[int, int] | None = None,
) -> Path:
    """Write a raster of one strip, without compression.

    Args:
        path: The file.
        pixels: `(H, W)` or `(H, W, C)`; float32, uint16 or uint8.
        bits: Bits of a value; 12 packs uint16. None is what the type has.
        nodata: Value that marks pixels without a measurement, as text.
        colours: TIFF's number for what bands mean.
        transform: The 16 numbers of an affine transformation.
        claimed: Tags whose value is another one than the pixels have.
    """
    height, width, bands = (*pixels.shape, 1)[:3]
    bits = bits or 8 * pixels.itemsize
    data = _packed(pixels) if bits == 12 else np.ascontiguousarray(pixels).tobytes()
    form = _FLOAT if pixels.dtype.kind == "f" else _UNSIGNED
    tags: dict[int, Any] = {
        256: width, 257: height, 258: (bits,) * bands, 259: 1, 262: colours, 273: _HEADER_BYTES, 277: bands,
        278: height, 279: len(data), 339: (form,) * bands, **(claimed or {}),
    }  # fmt: skip
    if transform is not None:
        tags[34264] = transform
    if nodata is not None:
        tags[42113] = nodata.encode() + b"\0"
    data += bytes(len(data) % 2)
    start = _HEADER_BYTES + len(data)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, start) + data + _directory(tags, start))
    return path


def _directory(tags: Mapping[int, Any], start: int) -> bytes:
    """Give the table of tags and behind it the values that do not fit into it."""
    table, beyond = struct.pack("<H", len(tags)), b""
    behind = start + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        kind, letter = _KINDS[tag]
        value = tags[tag]
        if isinstance(value, bytes):
            count, packed = len(value), value
        else:
            values = value if isinstance(value, tuple) else (value,)
            count, packed = len(values), struct.pack(f"<{len(values)}{letter}", *values)
        if len(packed) > 4:
            table += struct.pack("<HHII", tag, kind, count, behind + len(beyond))
            beyond += packed + bytes(len(packed) % 2)
        else:
            table += struct.pack("<HHI4s", tag, kind, count, packed)
    return table + bytes(4) + beyond


def _packed(pixels: NDArray[np.uint16]) -> bytes:
    """Pack pairs of 12 bits into three bytes; rows have an even number of pixels."""
    first, second = pixels[:, ::2].astype(np.uint32), pixels[:, 1::2].astype(np.uint32)
    three = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1)
    return three.astype(np.uint8).tobytes()
