"""Grey images in TIF files, single or in pairs, of one size and normalised by what is not background."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch

from autotune.data.datasets.file_reading import file_bytes, naming
from autotune.data.datasets.raster_files import MAX_SAMPLE_BYTES, Raster, read_bytes
from autotune.data.datasets.tif_grayscale import gray_pixels
from autotune.data.datasets.tiff_pages import read_tiff
from autotune.data.datasets.windows import path_array, path_at
from autotune.data.extras import is_installed
from autotune.data.stages import Raw, StagedDataset
from autotune.data.transforms.augmentation import SeededAugmentation, check_layout
from autotune.data.transforms.device_normalization import NormalizesByMask, check_normalize_on
from autotune.data.transforms.local_normalization import LocalNormalizeByMask
from autotune.errors import DatasetError, SampleError, SpecError

Paths = Sequence[str | os.PathLike[str]]
_READERS: Mapping[str, Callable[[bytes], Raster]] = {"rasterio_bytes": read_bytes, "tifffile": read_tiff}


class TifImageDataset(StagedDataset):
    """Single grey images; a sample is float32 `(1, H, W)`.

    Each file is loaded, made grey (`tif_grayscale` tells how), resized to `patch_size` whatever its size (by area,
    as MONAI's `Resize` does by default), normalised by `LocalNormalizeByMask` and only then augmented.

    Args:
        paths: TIF files; of several pages the first counts.
        patch_size: Height and width of every sample.
        augmentation: A transform of Albumentations that keeps the size, or a `SeededAugmentation`; None is none. What
            changes brightness or adds noise clips to 0 to 1, which is refused: normalised images lie outside.
        normalize_on: Where images are normalised: `loader` where samples are loaded, or `device` in whole batches
            after the transfer, by `device_transform`, which no augmentation goes with.
        seed: Seed of the augmentation.

    Attributes:
        decoder: What reads the bytes: `rasterio_bytes`, or `tifffile` where that package is installed. Both give
            the same bits.
        device_transform: What normalises batches on the device; None where the loader does.
    """

    unfingerprinted = ("augmentation", "decoder")
    part_names: tuple[str, ...] = ("image.tif",)
    targets: tuple[str, ...] = ("image",)
    """What the parts of a sample are called where they are augmented."""

    def __init__(
        self,
        paths: Paths,
        *,
        patch_size: Sequence[int],
        augmentation: Any = None,
        normalize_on: str = "loader",
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        self._set_up((paths,), patch_size, augmentation, normalize_on)

    def _set_up(
        self, parts: tuple[Paths, ...], patch_size: Sequence[int], augmentation: Any, normalize_on: str
    ) -> None:
        on_device = check_normalize_on(normalize_on) == "device"
        if on_device and augmentation is not None:
            raise SpecError(
                "augmentation is made for normalised images, and normalize_on='device' normalises after it; leave "
                "augmentation out, or take normalize_on='loader'"
            )
        self.device_transform = NormalizesByMask(len(parts)) if on_device else None
        self.patch_size = checked_patch_size(patch_size)
        seeded = augmentation is None or isinstance(augmentation, SeededAugmentation)
        self.augmentation: SeededAugmentation | None = augmentation if seeded else SeededAugmentation(augmentation)
        self.normalize = None if on_device else LocalNormalizeByMask()
        self.decoder = "rasterio_bytes"
        self._parts = tuple(path_array(paths) for paths in parts)

    @property
    def decoders(self) -> tuple[str, ...]:
        """Names of the decoders that can be used here, the dataset's own first."""
        with_tifffile = is_installed("tifffile") and is_installed("imagecodecs")
        return ("rasterio_bytes", *(("tifffile",) if with_tifffile else ()))

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
        return chosen

    def __len__(self) -> int:
        return len(self._parts[0])

    def read(self, index: int) -> Raw:
        """Give the bytes of each file of a sample."""
        return tuple(_file_bytes(path_at(paths, index)) for paths in self._parts)

    def decode(self, raw: Raw) -> Any:
        """Turn the bytes of the files into a sample."""
        return self._sample([self._decoded(part, number) for number, part in enumerate(raw)])

    def base_sample(self, index: int) -> Any:
        """Read one sample; what is wrong with it names the file."""
        made = []
        for paths in self._parts:
            path = path_at(paths, index)
            with naming(path):
                made.append(self._decoded(_file_bytes(path)))
        return self._sample(made)

    @property
    def augment(self) -> Callable[[Any, torch.Generator], Any] | None:
        """Apply the augmentation to a sample, alike to all its parts; None where there is none."""
        return None if self.augmentation is None else self._augmented

    def path_of(self, index: int) -> str:
        """Give the path of the (first) file behind a sample."""
        return path_at(self._parts[0], index)

    def source_paths(self) -> Iterator[str]:
        """Give every file behind the dataset."""
        for paths in self._parts:
            yield from (path_at(paths, index) for index in range(len(paths)))

    def sample_structure(self) -> str:
        """Declare the structure of a sample."""
        height, width = self.patch_size
        one = f"float32[1,{height},{width}]"
        return one if len(self._parts) == 1 else f"({', '.join([one] * len(self._parts))})"

    def _decoded(self, data: bytes, number: int | None = None) -> torch.Tensor:
        """Prepare one part; its number, where several are told apart by nothing else, is named in errors."""
        try:
            gray = gray_pixels(bytes(data), _READERS[self.decoder])
        except SampleError as error:
            if number is None or len(self._parts) == 1:
                raise
            raise SampleError(f"{self.part_names[number]}: {error.message}", error.path) from error
        resized = resized_by_area(torch.from_numpy(gray)[None], self.patch_size)
        if self.normalize is None:
            return resized
        # By way of numpy all along: torch divides even small work among threads, which wait for each other where
        # other programs take the CPUs (20 ms for each step that takes 0.1 ms).
        return torch.from_numpy(self.normalize(resized.numpy()))

    def _sample(self, parts: list[torch.Tensor]) -> Any:
        return parts[0] if len(parts) == 1 else tuple(parts)

    def _augmented(self, sample: Any, generator: torch.Generator) -> Any:
        parts = (sample,) if isinstance(sample, torch.Tensor) else sample
        arrays = {name: part[0].numpy() for name, part in zip(self.targets, parts, strict=True)}
        if self.augmentation is None:
            return sample
        made = self.augmentation(generator, **arrays)
        for name, array in made.items():
            check_layout(name, array, size=self.patch_size, channels=1, dtypes=(np.float32, np.float64))
        return self._sample([torch.from_numpy(array).float().reshape(1, *self.patch_size) for array in made.values()])


class TifPairDataset(TifImageDataset):
    """Pairs of grey images; a sample is `(target, condition)`, both float32 `(1, H, W)`.

    Both go through the steps of `TifImageDataset`, and get the same draws of the augmentation. The files of a pair
    may have different sizes, as both are resized.

    Args:
        target_paths: TIF files.
        condition_paths: TIF files, one for each target, in the same order.
        patch_size: Height and width of both images.
        augmentation: As `TifImageDataset` takes it; it is given `image` (the target) and `condition`.
        normalize_on: As `TifImageDataset` takes it.
        seed: Seed of the augmentation.

    Raises:
        DatasetError: There are not as many conditions as targets.
    """

    part_names = ("target.tif", "condition.tif")
    targets = ("image", "condition")

    def __init__(
        self,
        target_paths: Paths,
        condition_paths: Paths,
        *,
        patch_size: Sequence[int],
        augmentation: Any = None,
        normalize_on: str = "loader",
        seed: int = 0,
    ) -> None:
        StagedDataset.__init__(self, seed=seed)
        if len(target_paths) != len(condition_paths):
            raise DatasetError(
                f"each target needs one condition, got {len(target_paths)} targets and "
                f"{len(condition_paths)} conditions"
            )
        self._set_up((target_paths, condition_paths), patch_size, augmentation, normalize_on)


def checked_patch_size(value: Any) -> tuple[int, int]:
    """Give height and width.

    Raises:
        SpecError: They are not two whole numbers from 1 on.
    """
    sides = tuple(value) if isinstance(value, list | tuple) else ()
    if len(sides) != 2 or not all(type(side) is int and side >= 1 for side in sides):
        raise SpecError(f"patch_size is height and width in whole pixels, as (256, 256), got {value!r}")
    return sides[0], sides[1]


def resized_by_area(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize float32 `(1, H, W)` to a height and width: the mean of the area that each new pixel covers.

    Bit for bit what MONAI's `Resize(size)` gives, but for an image of one value, which stays one value: computed
    in float32, its mean would come out as several.
    """
    if tuple(image.shape[1:]) == size:
        return image
    pixels = image.numpy()
    if pixels.size and bool((pixels == pixels.flat[0]).all()):
        return torch.full((1, *size), float(pixels.flat[0]))
    return torch.nn.functional.interpolate(image[None], size=size, mode="area")[0]


def _file_bytes(path: str) -> bytes:
    return file_bytes(path, kind="image", max_bytes=MAX_SAMPLE_BYTES)


__all__ = ["TifImageDataset", "TifPairDataset", "checked_patch_size", "resized_by_area"]
