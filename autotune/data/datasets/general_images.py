"""Photographs in a folder as training takes them: one size, normalised, with a label from their folder."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from autotune.data.datasets.base import BaseDataset
from autotune.data.datasets.broken import OnBroken
from autotune.data.datasets.class_folders import class_numbers
from autotune.data.datasets.image_decoders import decode_image
from autotune.data.datasets.images import ImageFilesDataset, image_files
from autotune.data.datasets.windows import Size
from autotune.data.extras import needed
from autotune.data.modes import LoadingMode
from autotune.data.stages import Raw
from autotune.data.transforms.device_normalization import NormalizesImages, check_normalize_on
from autotune.errors import SpecError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue over ImageNet, in 0 to 1."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of red, green and blue over ImageNet, in 0 to 1."""


class ImageDataset(BaseDataset, ImageFilesDataset):
    """The images of a folder with the number of their class folder.

    A sample is `(image, target)`: float32 `(3, H, W)` and an int64 tensor without dimensions. By default an image is
    resized to `image_size` (bilinear with antialiasing, the shape not kept), scaled to 0 to 1 and normalised. A
    `transform` takes the place of all three: it gets an upright RGB image of `PIL` at its own size, as the transforms
    of torchvision and others expect it, and what it gives is the first part of the sample.

    `cache_size` keeps decoded images as uint8, a quarter of what samples take. Loading modes and broken files are
    those of `BaseDataset`; classes and decoders those of `ImageFilesDataset`.

    Args:
        data_path: Folder of images, in class folders or without (hidden files are left out); or one image.
        image_size: Height and width, or one number for a square.
        transform: Takes the place of resizing and normalising.
        loading_mode: How samples come into memory.
        cache_size: Images that `LAZY` keeps in each process, the ones used last.
        target_transform: Applied to the target.
        mean: Mean of red, green and blue, in 0 to 1.
        std: Standard deviation of red, green and blue, in 0 to 1.
        normalize_on: Where images are scaled and normalised: `loader` where samples are loaded, or `device` in whole
            batches after the transfer, by `device_transform`. Samples are uint8 then, a quarter of the bytes.
        decoder: One of `image_decoders.DECODERS`.
        on_broken: What becomes of an image that cannot be read.
        memory_limit_bytes: Most bytes that `EAGER` and `CACHED` keep.
        seed: Seed of what is random in the transforms.

    Attributes:
        image_size: Height and width; None with a transform of the caller's own.
        device_transform: What normalises batches on the device; None where the loader does.

    Raises:
        DatasetError: The folder is missing or holds no image.
        SpecError: A setting breaks its rule.
    """

    unfingerprinted = ("_scaling",)
    part_names = ("image", "label.cls")

    def __init__(  # noqa: PLR0917  # the documented order
        self,
        data_path: str | os.PathLike[str],
        image_size: Size = (224, 224),
        transform: Callable[[Any], Any] | None = None,
        loading_mode: LoadingMode | str = LoadingMode.LAZY,
        cache_size: int = 1000,
        *,
        target_transform: Callable[[Any], Any] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        normalize_on: str = "loader",
        decoder: str = "pil",
        on_broken: OnBroken = "raise",
        memory_limit_bytes: int | None = None,
        seed: int = 0,
    ) -> None:
        paths, labels, classes = _labelled_images(Path(data_path).expanduser())
        size = image_size if transform is None else None
        ImageFilesDataset.__init__(self, paths, labels, size=size, classes=classes, decoder=decoder)
        self.image_size = self.size
        self._scaling = _channels(mean, "mean"), _channels(std, "std")
        if min(self.std) <= 0:
            raise SpecError(f"std must be above 0 for every channel, got {std!r}")
        on_device = check_normalize_on(normalize_on) == "device"
        if on_device and transform is not None:
            raise SpecError(
                "a transform takes the place of normalising, got one beside normalize_on='device'; leave one out"
            )
        self._stored_scaling = None if on_device or transform is not None else self._scaling
        self.device_transform = _on_device(*self._scaling) if on_device else None
        BaseDataset.__init__(
            self,
            data_path,
            transform,
            target_transform,
            loading_mode,
            cache_size=cache_size,
            on_broken=on_broken,
            memory_limit_bytes=memory_limit_bytes,
            seed=seed,
        )

    def __len__(self) -> int:
        return ImageFilesDataset.__len__(self)

    def path_of(self, index: int) -> str:
        """Give the path of the image behind a sample."""
        return ImageFilesDataset.path_of(self, index)

    source_paths = ImageFilesDataset.source_paths

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean of red, green and blue, in 0 to 1."""
        return self._scaling[0]

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation of red, green and blue, in 0 to 1."""
        return self._scaling[1]

    def _check_transform(self, given: Callable[[Any], Any] | None) -> None:
        if "_transform" in vars(self) and (given is None) != (self.transform is None):
            plain = self.transform is None
            made = "without, so that it resizes and normalises by itself" if plain else "with one in the place of these"
            raise SpecError(
                f"an ImageDataset keeps or stores other samples with a transform than without, got {given!r} for one "
                f"made {made}; make a new one"
            )

    def with_decoder(self, name: str) -> Self:
        """Give a copy that decodes otherwise and keeps nothing by itself.

        Raises:
            SpecError: The decoder is not offered.
        """
        return super().with_decoder(name).unkept()

    def load(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Read one image as uint8 `(3, H, W)`, with its label."""
        return self._pixels(self.read(index))

    def finish(self, kept: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalise an image, unless a transform or the device is to get it as it is."""
        image, target = kept
        if self._stored_scaling is None:
            return image, target
        return _normalised(image, *self._stored_scaling), target

    def decode(self, raw: Raw) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]  # the label is a tensor
        """Turn the bytes of a file and its label into a sample before the transforms."""
        return self.finish(self._pixels(raw))

    def transformed(self, sample: Any) -> Any:
        """Apply the transforms, to the image as `PIL` has it."""
        if self.transform is None:
            return super().transformed(sample)
        needed("PIL", "a transform of images")
        pixels = sample[0].permute(1, 2, 0).contiguous().numpy()
        return super().transformed((importlib.import_module("PIL.Image").fromarray(pixels), sample[1]))

    def sample_structure(self) -> str | None:
        """Declare the structure of a sample, where no transform of the caller's own makes it."""
        if self.size is None or self.augments_samples:
            return None
        dtype = "uint8" if self._stored_scaling is None else "float32"
        return f"({dtype}[3,{self.size[0]},{self.size[1]}], int64[])"

    def _pixels(self, raw: Raw) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = decode_image(bytes(raw[0]), self.decoder, self.size)
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), torch.tensor(int(bytes(raw[1])))


def _labelled_images(path: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Give the images of a folder, their labels and the names of these."""
    if path.is_file():
        return [path], [0], ()
    paths = image_files(path)
    classes, labels = class_numbers(paths, path, kind="images")
    return paths, labels.tolist(), classes


def _normalised(image: torch.Tensor, means: Sequence[float], stds: Sequence[float]) -> torch.Tensor:
    # By numpy, in one thread: torch's own are many times slower where cores are busy.
    pixels = image.numpy()
    made = np.empty(pixels.shape, dtype=np.float32)
    for channel, values, mean, std in zip(made, pixels, means, stds, strict=True):
        np.multiply(values, np.float32(1 / (255 * std)), out=channel)
        np.subtract(channel, np.float32(mean / std), out=channel)
    return torch.from_numpy(made)


def _on_device(mean: Sequence[float], std: Sequence[float]) -> NormalizesImages:
    """Give what scales 8-bit pixels to 0 to 1 and normalises them, in one step."""
    return NormalizesImages([255 * value for value in mean], [255 * value for value in std])


def _channels(values: Sequence[float], name: str) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{name} has three numbers, for red, green and blue, got {values!r}") from error
    return red, green, blue


__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "ImageDataset"]
