"""Whole TIFFs through tifffile, where it gives what GDAL gives, bit for bit."""

from __future__ import annotations

import io
import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from autotune.data.datasets.raster_files import MAX_SAMPLE_BYTES, Raster, read_bytes
from autotune.data.extras import needed

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DTYPES = ("uint8", "uint16", "uint32", "int16", "int32", "float32", "float64")
_COMPRESSIONS = (1, 5, 8, 32946, 50000)  # none, LZW, deflate, old deflate, Zstandard: all without loss
_PREDICTORS = {"u": (1, 2), "i": (1, 2), "f": (1, 3)}  # none; differences of whole numbers, of floats
_PHOTOMETRICS = (1, 2)  # dark is 0; red, green, blue
_NODATA_TAG = 42113
_reading = threading.local()
_NUMBER = re.compile(r"[+-]?(nan|inf|\d+(\.\d*)?([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?)", re.IGNORECASE)


def read_tiff(data: bytes, *, bands: Sequence[int] | None = None) -> Raster:
    """Read a whole raster from the bytes of its file, without coordinates.

    tifffile decodes what it decodes as GDAL does: the first page, in whole numbers or floats of usual width,
    uncompressed, LZW, deflate or Zstandard. All else, other formats and damaged files included, is GDAL's.

    Raises:
        SampleError: GDAL cannot read it either; knows no path.
        MissingExtraError: tifffile is not installed.
    """
    tifffile = needed("tifffile", "decoder 'tifffile'")
    raster = None
    if data[:4] in _TIFF_STARTS:
        try:
            with _quiet():
                raster = _read_page(tifffile, data, bands)
        except Exception:  # noqa: BLE001  # whatever it stumbles over, GDAL judges the file
            raster = None
    return read_bytes(data, bands=bands) if raster is None else raster


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep tifffile from warning of each file, in this thread: what it does not take as GDAL does is GDAL's."""
    logging.getLogger("tifffile").addFilter(_passes)  # a second time is none
    _reading.now = True
    try:
        yield
    finally:
        _reading.now = False


def _passes(_: logging.LogRecord) -> bool:
    return not getattr(_reading, "now", False)


def _read_page(tifffile: Any, data: bytes, bands: Sequence[int] | None) -> Raster | None:
    with tifffile.TiffFile(io.BytesIO(data), _multifile=False) as file:
        page = file.pages.first
        nodata = _declared_nodata(page)
        if not _is_plain(page, len(data)) or nodata is False:
            return None
        count = page.samplesperpixel
        wanted = list(range(1, count + 1)) if bands is None else list(bands)
        if not wanted or min(wanted) < 1 or max(wanted) > count:
            return None
        pixels = page.asarray(maxworkers=1)
    shape = (page.imagelength, page.imagewidth)
    banded = pixels.reshape(count, *shape) if page.planarconfig == 2 else _bands_first(pixels.reshape(*shape, count))
    native = banded[[band - 1 for band in wanted]] if wanted != list(range(1, count + 1)) else banded
    native = np.require(native, dtype=native.dtype.newbyteorder("="), requirements=["C", "W", "O"])
    return Raster(pixels=native, nodata=nodata)


def _bands_first(pixels: Any) -> Any:
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def _is_plain(page: Any, size_bytes: int) -> bool:
    """Tell whether the page is of the kinds that both read alike."""
    dtype = page.dtype
    if dtype is None or dtype.name not in _DTYPES or page.bitspersample != 8 * dtype.itemsize:
        return False
    if page.compression not in _COMPRESSIONS or page.predictor not in _PREDICTORS[dtype.kind]:
        return False
    if page.photometric not in _PHOTOMETRICS or page.fillorder != 1 or page.imagedepth != 1:
        return False
    claimed = page.imagelength * page.imagewidth * page.samplesperpixel * dtype.itemsize
    if claimed > MAX_SAMPLE_BYTES:
        return False
    extents = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    return bool(extents) and all(start > 0 < count and start + count <= size_bytes for start, count in extents)


def _declared_nodata(page: Any) -> float | bool | None:
    """Give the nodata value as GDAL takes it from its tag; False where GDAL must be asked."""
    tag = page.tags.get(_NODATA_TAG)
    if tag is None:
        return None
    text = str(tag.value).strip(" \0\n")
    if not _NUMBER.fullmatch(text):
        return False
    number = float(text)
    if page.dtype is None or page.dtype.kind == "f":
        return number
    held = np.iinfo(page.dtype)
    return number if number == number // 1 and held.min <= number <= held.max else False


__all__ = ["read_tiff"]
