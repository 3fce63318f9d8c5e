"""Pairs of an image and its mask as GeoTIFF files."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch

from autotune.data.datasets.file_reading import naming
from autotune.data.datasets.raster_files import (
    Box,
    OpenRasters,
    Pixels,
    Raster,
    invalid_pixels,
    raster_metadata,
    raster_size,
    read_bytes,
    read_path,
)
from autotune.data.datasets.tiff_pages import read_tiff
from autotune.data.datasets.windows import Size, as_size, pad_to, path_array, path_at, window_origins
from autotune.data.extras import is_installed
from autotune.data.stages import Raw, StagedDataset
from autotune.errors import DatasetError, SampleError, SpecError

NodataRule = Literal["mask", "keep"]
Paths = Sequence[str | os.PathLike[str]]


class GeoTiffPairDataset(StagedDataset):
    """Images with masks of the same size, through rasterio.

    A sample is `(image, mask)`: float32 `(bands, H, W)` and uint8 `(1, H, W)`; with `metadata` a third
    part holds path, coordinate system, transform, nodata and window.

    Whole files are staged (`read` gives the bytes of both files); windows are not, as each would carry
    its whole file.

    Args:
        input_paths: Images.
        mask_paths: Masks, one for each image, in the same order.
        window: Size of tiles; None takes whole files.
        stride: Step from tile to tile; None is the window's size. Tiles cover every pixel.
        size: Size that every whole file has, where that is known; it is declared then, and checked.
        bands: Bands of the image, counted from 1; None is all.
        nodata: `mask` replaces pixels without a measurement (declared nodata, NaN, infinite) by `fill`;
            `keep` leaves pixels as they are.
        nodata_zero_is_invalid: Whether a declared nodata value of 0 counts. It does not by default, as
            0 m is bare ground in a canopy-height raster.
        fill: What replaces them.
        ignore_index: Value that the mask gets at those pixels; None leaves the mask alone.
        dtype: Type of the image; None keeps the file's.
        mask_dtype: Type of the mask.
        metadata: Whether samples have a third part.
        seed: Seed of the augmentation of a subclass that has one.

    Attributes:
        decoder: What reads whole files: `rasterio_path` by their paths (from bytes where there are only these),
            `rasterio_bytes` always from bytes, `tifffile` from bytes by the package of that name where it is
            installed and coordinates are not asked for. All give the same bits. Windows are read by path.
    """

    unfingerprinted = ("_open", "decoder")

    def __init__(
        self,
        input_paths: Paths,
        mask_paths: Paths,
        *,
        window: Size | None = None,
        stride: Size | None = None,
        size: Size | None = None,
        bands: Sequence[int] | None = None,
        nodata: NodataRule = "mask",
        nodata_zero_is_invalid: bool = False,
        fill: float = 0.0,
        ignore_index: int | None = None,
        dtype: str | None = "float32",
        mask_dtype: str = "uint8",
        metadata: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        if len(input_paths) != len(mask_paths):
            raise DatasetError(f"each image needs one mask, got {len(input_paths)} images and {len(mask_paths)} masks")
        if nodata not in ("mask", "keep"):
            raise SpecError(f"nodata must be 'mask' or 'keep', got {nodata!r}")
        if stride is not None and window is None:
            raise SpecError(f"stride needs a window, got stride={stride!r} with window=None")
        self.window = None if window is None else as_size(window, "window")
        self.stride = None if window is None else as_size(stride or window, "stride")
        self.size = None if size is None else as_size(size, "size")
        self.bands = None if bands is None else tuple(bands)
        self.nodata = nodata
        self.nodata_zero_is_invalid = nodata_zero_is_invalid
        self.fill = fill
        self.ignore_index = ignore_index
        self.dtype = dtype
        self.mask_dtype = mask_dtype
        self.metadata = metadata
        self.staged = window is None
        self._inputs = path_array(input_paths)
        self._masks = path_array(mask_paths)
        self._sizes = self._find_sizes()
        self._windows = self._list_windows()
        self._open = OpenRasters(place=metadata)
        self.decoder = "rasterio_path"

    part_names = ("image.tif", "mask.tif")
    own_decoder_on_bytes = "rasterio_bytes"

    @property
    def decoders(self) -> tuple[str, ...]:
        """Names of the decoders that can be used here, the dataset's own first."""
        if self.window is not None:
            return ("rasterio_path",)
        with_tifffile = not self.metadata and is_installed("tifffile") and is_installed("imagecodecs")
        return ("rasterio_path", "rasterio_bytes", *(("tifffile",) if with_tifffile else ()))

    @property
    def exact_decoders(self) -> tuple[str, ...]:
        """Names of those that give the same samples, bit for bit: all of them."""
        return self.decoders

    def with_decoder(self, name: str) -> Self:
        """Give a copy that decodes otherwise.

        Raises:
            SpecError: The decoder is not offered.
        """
        if name not in self.decoders:
            raise SpecError(f"decoder must be one of {', '.join(self.decoders)}, got {name!r}")
        chosen = copy.copy(self)
        chosen.decoder = name
        chosen._open = OpenRasters(place=self.metadata)  # noqa: SLF001  # its own class
        return chosen

    def __len__(self) -> int:
        return len(self._inputs) if self._windows is None else len(self._windows)

    def read(self, index: int) -> Raw:
        """Give the bytes of image and mask, and with `metadata` the path."""
        paths = path_at(self._inputs, index), path_at(self._masks, index)
        raw = []
        for path in paths:
            try:
                raw.append(Path(path).read_bytes())
            except OSError as error:
                raise SampleError(f"the raster cannot be read: {error}", path) from error
        return (*raw, os.fsencode(paths[0])) if self.metadata else tuple(raw)

    def decode(self, raw: Raw) -> Any:
        """Turn the bytes of image and mask into a sample."""
        if self.decoder == "tifffile":
            image, mask = read_tiff(raw[0], bands=self.bands), read_tiff(raw[1], bands=(1,))
        else:
            image = read_bytes(raw[0], bands=self.bands, place=self.metadata)
            mask = read_bytes(raw[1], bands=(1,))
        return self._sample(image, mask, os.fsdecode(raw[2]) if self.metadata else None, None)

    def base_sample(self, index: int) -> Any:
        """Read one sample by path where that is the decoder; bit for bit what `decode(read(index))` gives."""
        if self._windows is not None:
            return self._read_window(index)
        if self.decoder != "rasterio_path":
            return self._read_whole(index)
        path, mask_path = path_at(self._inputs, index), path_at(self._masks, index)
        image = read_path(path, bands=self.bands, place=self.metadata)
        return self._sample(image, read_path(mask_path, bands=(1,)), path, None)

    def _read_whole(self, index: int) -> Any:
        with naming(self.path_of(index)):
            return self.decode(self.read(index))

    def path_of(self, index: int) -> str:
        """Give the path of the image behind a sample."""
        return path_at(self._inputs, index if self._windows is None else int(self._windows[index, 0]))

    def source_paths(self) -> Iterator[str]:
        """Give every file behind the dataset."""
        for paths in (self._inputs, self._masks):
            yield from (path_at(paths, index) for index in range(len(paths)))

    def sample_structure(self) -> str | None:
        """Declare the structure of a sample, where it is known without opening a file."""
        side = self.window or self.size
        if side is None or self.bands is None or self.dtype is None or self.metadata:
            return None
        height, width = side
        return f"({self.dtype}[{len(self.bands)},{height},{width}], {self.mask_dtype}[1,{height},{width}])"

    @property
    def missing_pixel(self) -> float:
        """Value that samples have where nothing was measured."""
        return self.fill

    def _find_sizes(self) -> npt.NDArray[np.int64]:
        """Give height and width of each image, where windows need them."""
        if self.window is None:
            return np.empty((0, 2), dtype=np.int64)
        paths = (path_at(self._inputs, index) for index in range(len(self._inputs)))
        sizes = [self.size or raster_size(path) for path in paths]
        return np.array(sizes, dtype=np.int64).reshape(-1, 2)

    def _list_windows(self) -> npt.NDArray[np.int64] | None:
        if self.window is None or self.stride is None:
            return None
        return window_origins([(height, width) for height, width in self._sizes.tolist()], self.window, self.stride)

    def _read_window(self, index: int) -> Any:
        windows, window = self._windows, self.window
        if windows is None or window is None:
            raise DatasetError("windows are read only where a window was given")
        number, row, column = windows[index].tolist()
        path, mask_path = path_at(self._inputs, number), path_at(self._masks, number)
        height, width = self._sizes[number].tolist()
        box = (row, column, min(window[0], height - row), min(window[1], width - column))
        image = self._open.read(path, box, bands=self.bands)
        return self._sample(image, self._open.read(mask_path, box, bands=(1,)), path, box)

    def _sample(self, image: Raster, mask: Raster, path: str | None, box: Box | None) -> Any:
        height, width = image.pixels.shape[1:]
        if mask.pixels.shape[1:] != (height, width):
            raise SampleError(
                f"image and mask must have one size, got {height} x {width} and "
                f"{mask.pixels.shape[1]} x {mask.pixels.shape[2]}",
                path,
            )
        if self.size is not None and box is None and self.size != (height, width):
            raise SampleError(f"every file must be {self.size[0]} x {self.size[1]}, got {height} x {width}", path)
        pixels, labels = self._treat(image, mask, path)
        if self.window is not None:
            pixels = pad_to(pixels, self.window, self.missing_pixel)
            labels = pad_to(labels, self.window, self.ignore_index or 0)
        tensors = torch.from_numpy(pixels), torch.from_numpy(labels)
        if not self.metadata:
            return tensors
        return (*tensors, raster_metadata(image, path or "", box or (0, 0, height, width)))

    def _treat(self, image: Raster, mask: Raster, path: str | None) -> tuple[Pixels, Pixels]:
        """Apply the nodata rule and the types."""
        pixels, labels = image.pixels, mask.pixels
        if self.nodata == "mask":
            invalid = invalid_pixels(image, zero_is_invalid=self.nodata_zero_is_invalid)
            # After the type was changed: -1 or NaN has no place in the whole numbers of most files.
            pixels = pixels if self.dtype is None else pixels.astype(self.dtype, copy=False)
            pixels[invalid] = self.missing_pixel
            if labels.dtype.kind == "f":
                labels = np.nan_to_num(labels, nan=float(self.ignore_index or 0))
            labels = _cast_exactly(labels, self.mask_dtype, path)
            if self.ignore_index is not None:
                labels[invalid.any(axis=0, keepdims=True)] = self.ignore_index
        else:
            labels = _cast_exactly(labels, self.mask_dtype, path)
        return pixels if self.dtype is None else pixels.astype(self.dtype, copy=False), labels


def _cast_exactly(labels: Pixels, dtype: str, path: str | None) -> Pixels:
    if np.can_cast(labels.dtype, dtype):
        return labels.astype(dtype, copy=False)
    with np.errstate(invalid="ignore"):
        cast = labels.astype(dtype)
    if not np.array_equal(cast, labels):
        raise SampleError(
            f"labels of {labels.dtype} must fit into {dtype}, got {labels.min()} to {labels.max()}; set mask_dtype",
            path,
        )
    return cast
