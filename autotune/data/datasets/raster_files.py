"""Reading rasters through GDAL: settings, errors with the path, handles kept in one process only."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from autotune.data.datasets.tiff_header import TiffHeader, read_tiff_header
from autotune.errors import SampleError
from autotune.units import format_bytes

Pixels = npt.NDArray[Any]
Box = tuple[int, int, int, int]
"""A window as row, column, height and width in pixels."""

MAX_SAMPLE_BYTES = 4 * 1024**3
"""A file may claim any size; nothing above this is read at once."""

GDAL_SETTINGS = {
    # Measured on 256x256 float32 tiles (LZW, predictor 3), warm, one thread; 580/s by path with none of these.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # +5 %, more in large folders: no search for side files
    # GDAL_CACHEMAX, GDAL_NUM_THREADS and GTIFF_VIRTUAL_MEM_IO made no difference at this size (within 2 %);
    # one thread keeps worker processes from competing.
    "GDAL_NUM_THREADS": "1",
}
WITHOUT_PLACE = {"GDAL_GEOREF_SOURCES": "NONE"}
"""Where coordinates are not asked for: +30 %, as looking up a coordinate system costs 0.4 ms a file."""

_KEPT_OPEN = 16
_WHOLE = "rasters are whole files in a format of GDAL, as GeoTIFF"


@dataclass(frozen=True, kw_only=True)
class Raster:
    """Pixels with what the file says of them.

    Attributes:
        pixels: Shape `(bands, height, width)`.
        nodata: Declared nodata value of the first band; None without.
        crs: Coordinate system as text; empty without, or where it was not asked for.
        transform: Six numbers of the affine transform of these pixels.
    """

    pixels: Pixels
    nodata: float | None
    crs: str = ""
    transform: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@contextmanager
def gdal_settings(*, place: bool) -> Iterator[None]:
    """Apply the settings for reading; a raster without coordinates is no reason to warn."""
    with rasterio.Env(**GDAL_SETTINGS, **({} if place else WITHOUT_PLACE)), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def read_path(path: str, *, bands: Sequence[int] | None = None, place: bool = False) -> Raster:
    """Read a whole raster.

    Raises:
        SampleError: It cannot be read, or is too large to be read at once; carries the path.
    """
    with _explained(path), gdal_settings(place=place), rasterio.open(path) as file:
        return _read(file, bands, None, path, place=place)


def read_bytes(data: bytes, *, bands: Sequence[int] | None = None, place: bool = False) -> Raster:
    """Read a whole raster from the bytes of its file.

    Raises:
        SampleError: It cannot be read, or is too large to be read at once; knows no path.
    """
    if not data:  # which rasterio would take for a file to be written
        raise SampleError(f"the raster cannot be read: its file is empty; {_WHOLE}")
    with _explained(None), gdal_settings(place=place), MemoryFile(data) as memory, memory.open() as file:
        return _read(file, bands, None, None, place=place)


def raster_size(path: str) -> tuple[int, int]:
    """Give height and width of a raster; GDAL is asked only where it is no TIFF.

    Raises:
        SampleError: It cannot be read; carries the path.
    """
    header = _header(path)
    return header.height, header.width


def raster_bands(path: str) -> int:
    """Give the number of bands of a raster; GDAL is asked only where it is no TIFF.

    Raises:
        SampleError: It cannot be read; carries the path.
    """
    return _header(path).bands


def raster_metadata(raster: Raster, path: str, box: Box) -> dict[str, Any]:
    """Describe where the pixels of a sample come from, in types that torch collates.

    Args:
        raster: What was read there, with its place.
        path: The file.
        box: The part of it that the sample covers.
    """
    return {
        "path": path,
        "crs": raster.crs,
        "transform": raster.transform,
        "has_nodata": raster.nodata is not None,
        "nodata": float("nan") if raster.nodata is None else float(raster.nodata),
        "window": box,
    }


class OpenRasters:
    """Rasters read window by window, with the files kept open in each process and thread.

    Opening costs 25 times what a 64x64 window of an open file does. A forked worker opens its own;
    those that it inherited are neither used nor closed. A pickled copy starts with none open.
    """

    def __init__(self, *, place: bool = False) -> None:
        self._place = place
        self._open: OrderedDict[tuple[int, int, str], Any] = OrderedDict()
        self._inherited: list[Any] = []
        self._process = os.getpid()

    def read(self, path: str, box: Box, *, bands: Sequence[int] | None = None) -> Raster:
        """Read one window.

        Raises:
            SampleError: It cannot be read; carries the path.
        """
        with _explained(path), gdal_settings(place=self._place):
            return _read(self._file(path), bands, box, path, place=self._place)

    def _file(self, path: str) -> Any:
        if self._process != os.getpid():
            self._inherited.extend(self._open.values())
            self._open = OrderedDict()
            self._process = os.getpid()
        key = (self._process, threading.get_ident(), path)
        file = self._open.pop(key, None)
        if file is None:
            # Not `sharing`: a shared handle would be the inherited one.
            file = rasterio.open(path, sharing=False)
        self._open[key] = file
        if len(self._open) > _KEPT_OPEN:
            self._open.popitem(last=False)[1].close()
        return file

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self._place}

    def __setstate__(self, state: dict[str, Any]) -> None:
        OpenRasters.__init__(self, place=state["place"])


def invalid_pixels(raster: Raster, *, zero_is_invalid: bool = False) -> npt.NDArray[np.bool_]:
    """Tell which pixels hold no measurement: declared nodata, and whatever is not finite.

    A declared nodata value of 0 counts only with `zero_is_invalid`: many canopy-height rasters declare it,
    and in them 0 m is bare ground, a gap.
    """
    pixels = raster.pixels
    floating = pixels.dtype.kind in "fc"
    invalid: npt.NDArray[np.bool_] = ~np.isfinite(pixels) if floating else np.zeros(pixels.shape, dtype=bool)
    nodata = raster.nodata
    if nodata is None or not np.isfinite(nodata) or (nodata == 0 and not zero_is_invalid):
        return invalid
    if not floating and not (nodata == int(nodata) and _holds(pixels.dtype, int(nodata))):
        return invalid
    with np.errstate(over="ignore"):
        invalid |= pixels == np.asarray(nodata).astype(pixels.dtype)
    return invalid


def _holds(dtype: np.dtype[Any], number: int) -> bool:
    limits = np.iinfo(dtype)
    return int(limits.min) <= number <= int(limits.max)


@contextmanager
def _explained(path: str | None) -> Iterator[None]:
    try:
        yield
    except RasterioError as error:
        told = f"{error or type(error).__name__}".rstrip(".")
        raise SampleError(f"the raster cannot be read: {told}; {_WHOLE}", path) from error
    except (OSError, ValueError, MemoryError) as error:
        raise SampleError(f"the raster cannot be read: {error or type(error).__name__}", path) from error


def _header(path: str) -> TiffHeader:
    with _explained(path):
        header = read_tiff_header(path)
        if header is not None:
            return header
        with gdal_settings(place=False), rasterio.open(path) as file:
            _check_bands(file, None, path)
            return TiffHeader(width=int(file.width), height=int(file.height), bands=int(file.count))


def _check_bands(file: Any, bands: Sequence[int] | None, path: str | None) -> None:
    """Refuse bands that the file does not have: rasterio raises an `IndexError` there, which would end an iteration."""
    if not file.count:
        raise SampleError(
            f"the file has no bands of its own, though it may hold datasets as HDF5 does; {_WHOLE}, and the rows of an "
            "HDF5 file are read by HDF5Dataset",
            path,
        )
    if bands is not None and (not bands or min(bands) < 1 or max(bands) > file.count):
        raise SampleError(f"bands are counted from 1, and the raster has {file.count}, got bands={tuple(bands)}", path)


def _read(file: Any, bands: Sequence[int] | None, box: Box | None, path: str | None, *, place: bool) -> Raster:
    _check_bands(file, bands, path)
    height, width = (file.height, file.width) if box is None else box[2:]
    itemsize = max(np.dtype(dtype).itemsize for dtype in file.dtypes)
    claimed = height * width * itemsize * (file.count if bands is None else len(bands))
    if claimed > MAX_SAMPLE_BYTES:
        raise SampleError(
            f"the raster claims {width} x {height} pixels ({format_bytes(claimed)}), and at most "
            f"{format_bytes(MAX_SAMPLE_BYTES)} are read at once; use a window",
            path,
        )
    window = None if box is None else Window(box[1], box[0], box[3], box[2])
    pixels = file.read(None if bands is None else list(bands), window=window)
    if not place:
        return Raster(pixels=pixels, nodata=file.nodata)
    transform = file.transform if window is None else file.window_transform(window)
    crs = file.crs.to_string() if file.crs else ""
    return Raster(pixels=pixels, nodata=file.nodata, crs=crs, transform=tuple(transform)[:6])
