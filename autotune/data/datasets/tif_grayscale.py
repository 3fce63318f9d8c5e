"""One channel from the pixels of a TIFF, by what the file says its bands are.

| the file says | becomes |
| --- | --- |
| black is 0, one band | that band |
| white is 0, one band of whole numbers | the largest value of its bits minus that band |
| red, green, blue (also stored as YCbCr) | `0.299 R + 0.587 G + 0.114 B`, ITU-R BT.601, as `L` of PIL |
| a palette | the same of the palette's colours, in 8 bits |
| one of these with alpha | the same; alpha is dropped |
| anything else (CMYK, CIELab, several bands without colours, complex numbers) | an error |

Declared nodata and values that are not finite become 0, which is background. Of several colours, a pixel is nodata
where all have that value; alpha counts for nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from autotune.data.datasets.raster_files import Raster, invalid_pixels
from autotune.errors import SampleError

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue."""

_BITS, _PHOTOMETRIC, _COLORS, _EXTRA_SAMPLES = 258, 262, 320, 338
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_OTHERS = {4: "a transparency mask", 5: "CMYK colours", 8: "CIELab colours"}
_ALPHA = (1, 2)
_FORMATS = {1: "B", 3: "H", 4: "I"}
_WANTED = (_BITS, _PHOTOMETRIC, _COLORS, _EXTRA_SAMPLES)
_MOST_ENTRIES = 4096
_MOST_VALUES = 3 * 2**16
_PER_8_BITS = 257
"""Palettes have 16 bits of each colour: 65535 is 255."""


def gray_pixels(data: bytes, read: Callable[[bytes], Raster]) -> npt.NDArray[np.float32]:
    """Give the grey pixels `(H, W)` of the first page.

    Args:
        data: Bytes of the file.
        read: Reads its pixels.

    Raises:
        SampleError: It is no TIFF, cannot be read, or its bands have no grey form; knows no path.
    """
    tags = tiff_tags(data)
    raster = read(data)
    if raster.pixels.dtype.kind not in "biuf":
        raise SampleError(f"pixels must be real numbers, got {raster.pixels.dtype}")
    kind = tags.get(_PHOTOMETRIC, (_BLACK_IS_ZERO,))[0]
    if kind in _OTHERS:
        raise SampleError(f"images are loaded as grey, and the file has {_OTHERS[kind]}; convert it to grey or RGB")
    colors = 3 if kind in (_RGB, _YCBCR) else 1
    _check_bands(raster, tags, colors)
    gray: npt.NDArray[Any] = _luma(raster.pixels) if colors == 3 else raster.pixels[0]
    if kind == _PALETTE:
        gray = _looked_up(gray, tags.get(_COLORS, ()))
    elif kind == _WHITE_IS_ZERO:
        gray = _inverted(gray, tags.get(_BITS, (1,))[0])
    return _finite(gray, invalid_pixels(raster)[:colors])


class _Layout(NamedTuple):
    """How a TIFF or BigTIFF is laid out."""

    order: str
    at: int
    offset: str
    counter: str
    entry: str


def tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """Give the values of the tags that tell what pixels mean, from the first directory.

    Raises:
        SampleError: The bytes are no TIFF, or it ends before its directory does; knows no path.
    """
    layout = _layout(data)
    try:
        (start,) = struct.unpack_from(f"{layout.order}{layout.offset}", data, layout.at)
        (count,) = struct.unpack_from(f"{layout.order}{layout.counter}", data, start)
        start += struct.calcsize(f"={layout.counter}")
        tags = {}
        for number in range(min(count, _MOST_ENTRIES)):
            form = f"{layout.order}{layout.entry}"
            tag, kind, length, value = struct.unpack_from(form, data, start + number * struct.calcsize(form))
            if tag in _WANTED and kind in _FORMATS and 0 < length <= _MOST_VALUES:
                values = f"{layout.order}{length}{_FORMATS[kind]}"
                inline = struct.calcsize(values) <= len(value)
                (at,) = (0,) if inline else struct.unpack(f"{layout.order}{layout.offset}", value)
                tags[tag] = struct.unpack_from(values, value if inline else data, at)
    except (struct.error, OverflowError) as error:  # an offset may be any number
        raise SampleError("the TIFF ends before its directory does; give the whole file") from error
    return tags


def _layout(data: bytes) -> _Layout:
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    version = struct.unpack_from(f"{order}H", data, 2)[0] if order is not None and len(data) >= 8 else None
    if order is None or version not in (42, 43):
        raise SampleError(
            f"the file is no TIFF: it starts with {bytes(data[:4])!r}; write it as TIFF, or read images of other kinds "
            "by ImageDataset"
        )
    if version == 42:
        return _Layout(order, 4, "I", "H", "HHI4s")
    return _Layout(order, 8, "Q", "Q", "HHQ8s")


def _check_bands(raster: Raster, tags: dict[int, tuple[int, ...]], colors: int) -> None:
    extra = len(raster.pixels) - colors
    if extra == 0 or (extra == 1 and tags.get(_EXTRA_SAMPLES, (0,))[0] in _ALPHA):
        return
    raise SampleError(
        f"images are loaded as grey, from one band or from red, green and blue, with or without alpha, got "
        f"{len(raster.pixels)} bands {'of which 3 are colours' if colors == 3 else 'without colours'}; write one band"
    )


def _looked_up(index: npt.NDArray[Any], colors: tuple[int, ...]) -> npt.NDArray[np.float64]:
    table = np.array(colors, dtype=np.float64).reshape(3, -1) if len(colors) % 3 == 0 else np.empty((3, 0))
    if index.dtype.kind not in "bu" or index.max(initial=0) >= table.shape[1]:
        raise SampleError(f"a palette has a colour for every pixel, got {table.shape[1]} colours for {index.max()}")
    gray: npt.NDArray[np.float64] = _luma(table / _PER_8_BITS)[index]
    return gray


def _luma(bands: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    red, green, blue = (weight * bands[number].astype(np.float64) for number, weight in enumerate(LUMA))
    total: npt.NDArray[np.float64] = red + green + blue
    return total


def _inverted(gray: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
    if gray.dtype.kind not in "bu":
        raise SampleError(f"white is 0 in the file, which has a meaning for unsigned whole numbers, got {gray.dtype}")
    inverted: npt.NDArray[np.float64] = (2**bits - 1) - gray.astype(np.float64)
    return inverted


def _finite(gray: npt.NDArray[Any], invalid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        pixels: npt.NDArray[np.float32] = gray.astype(np.float32)
    pixels[invalid.all(axis=0) | ~np.isfinite(pixels)] = 0.0
    return pixels


__all__ = ["LUMA", "gray_pixels", "tiff_tags"]
