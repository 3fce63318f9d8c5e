"""Size and type of a TIFF from its first directory, without GDAL.

A dataset is built before worker processes fork, and GDAL is best not touched until after that.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

_WIDTH, _HEIGHT, _BANDS = 256, 257, 277
_WANTED = (_WIDTH, _HEIGHT, _BANDS)
_MOST_ENTRIES = 4096
_FORMATS = {1: "B", 3: "H", 4: "I", 16: "Q"}


@dataclass(frozen=True, kw_only=True)
class TiffHeader:
    """What the first directory of a TIFF claims."""

    width: int
    height: int
    bands: int


def read_tiff_header(path: str | os.PathLike[str]) -> TiffHeader | None:
    """Read size and number of bands of a TIFF or BigTIFF; None where the file is neither or is damaged.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:  # noqa: PTH123  # paths come as text from arrays
        try:
            found = _read_directory(file)
        except (struct.error, KeyError):
            return None
    if found is None or _WIDTH not in found or _HEIGHT not in found:
        return None
    return TiffHeader(width=found[_WIDTH], height=found[_HEIGHT], bands=found.get(_BANDS, 1))


def _read_directory(file: BinaryIO) -> dict[int, int] | None:
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None:
        return None
    (version,) = struct.unpack(f"{order}H", start[2:4])
    if version == 42:
        (offset,) = struct.unpack(f"{order}I", start[4:8])
        counter, entry, inline = "H", "HHI", 4
    elif version == 43:
        (offset,) = struct.unpack(f"{order}Q", start[8:16])
        counter, entry, inline = "Q", "HHQ", 8
    else:
        return None
    file.seek(offset)
    (count,) = struct.unpack(f"{order}{counter}", file.read(struct.calcsize(f"{order}{counter}")))
    found = {}
    for _ in range(min(count, _MOST_ENTRIES)):
        tag, kind, _length = struct.unpack(f"{order}{entry}", file.read(struct.calcsize(f"{order}{entry}")))
        value = file.read(inline)
        if tag in _WANTED:
            form = f"{order}{_FORMATS[kind]}"
            (found[tag],) = struct.unpack(form, value[: struct.calcsize(form)])
    return found
