"""Photographs in files, with a label each."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from autotune.data.datasets.class_folders import class_numbers, visible_files
from autotune.data.datasets.file_reading import file_bytes, naming
from autotune.data.datasets.image_decoders import DECODERS, decode_image, installed_decoders
from autotune.data.datasets.windows import Size, as_size, path_array, path_at
from autotune.data.stages import Raw, StagedDataset
from autotune.errors import DatasetError, SpecError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class ImageFilesDataset(StagedDataset):
    """Image files with labels.

    A sample is `(image, label)`: uint8 `(3, H, W)` in RGB, turned as its EXIF orientation says, and an int.
    Greyscale, palette, CMYK and 16-bit files become RGB by one rule for all decoders (see `image_decoders`).

    Args:
        paths: Image files.
        labels: Label of each, a whole number; None is 0 for all.
        size: Height and width that every image is resized to (bilinear with antialiasing, the shape not kept);
            None keeps each image's own.
        classes: Names of the labels, where they have some.
        decoder: The dataset's own decoder, one of `image_decoders.DECODERS`. `pil`, `simplejpeg` and `cv2` give the
            same bits. With a size there are also `pil_draft`, `simplejpeg_scaled` and `cv2_scaled`, which decode a
            JPEG at reduced size and resize the rest: faster, and other pixels.
        seed: Seed of the augmentation of a subclass that has one.

    Attributes:
        decoder: The decoder in use.
    """

    unfingerprinted: tuple[str, ...] = ("decoder", "_own_decoder", "classes")
    part_names = ("image", "label.cls")

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        labels: Sequence[int] | None = None,
        *,
        size: Size | None = None,
        classes: Sequence[str] = (),
        decoder: str = "pil",
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        if labels is not None and len(labels) != len(paths):
            raise DatasetError(f"each image needs one label, got {len(paths)} images and {len(labels)} labels")
        if labels is not None and np.asarray(labels).dtype.kind not in "biu" and len(labels):
            raise DatasetError(f"labels are whole numbers, got {np.asarray(labels).dtype} as {labels[0]!r}")
        self.size = None if size is None else as_size(size, "size")
        self.classes = tuple(classes)
        self._paths = path_array(paths)
        self._labels = np.zeros(len(paths), np.int64) if labels is None else np.array(labels, dtype=np.int64)
        self._own_decoder = decoder
        self._set_decoder(decoder)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str], **settings: Any) -> Self:
        """Take every image under a folder, in the order of their paths.

        Folders inside it are the classes, numbered in the order of their names; images at any depth in them have
        that label. Without such folders the label is 0. Hidden files are left out.

        Args:
            folder: Folder that is searched.
            **settings: Settings of the class.

        Raises:
            DatasetError: There is no such folder, it holds no image, or holds some beside the class folders.
        """
        root = Path(folder).expanduser()
        found = image_files(root)
        classes, labels = class_numbers(found, root, kind="images")
        return cls(found, labels.tolist(), classes=classes, **settings)

    @property
    def decoders(self) -> tuple[str, ...]:
        """Names of the decoders that can be used here, the dataset's own first."""
        usable = [name for name in installed_decoders() if DECODERS[name].exact or self.size is not None]
        return tuple(sorted(usable, key=lambda name: name != self._own_decoder))

    @property
    def exact_decoders(self) -> tuple[str, ...]:
        """Names of those that give what the dataset's own does, bit for bit."""
        if not DECODERS[self._own_decoder].exact:
            return (self._own_decoder,)
        return tuple(name for name in self.decoders if DECODERS[name].exact)

    def with_decoder(self, name: str) -> Self:
        """Give a copy that decodes otherwise.

        Raises:
            SpecError: The decoder is not offered.
        """
        chosen = copy.copy(self)
        chosen._set_decoder(name)  # noqa: SLF001  # its own class
        return chosen

    def _set_decoder(self, name: str) -> None:
        if name not in self.decoders:
            raise SpecError(f"decoder must be one of {', '.join(self.decoders)}, got {name!r}")
        self.decoder = name
        # What the fingerprint sees: decoders that give the same pixels share what is stored.
        self._other_pixels = None if DECODERS[name].exact else name

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> Raw:
        """Give the bytes of the file and the label as text."""
        return file_bytes(path_at(self._paths, index), kind="image"), str(int(self._labels[index])).encode()

    def decode(self, raw: Raw) -> tuple[torch.Tensor, int]:
        """Turn the bytes of a file and its label into a sample."""
        pixels = decode_image(bytes(raw[0]), self.decoder, self.size)
        # A copy always: turned by its orientation, an image one pixel wide counts as contiguous with a negative stride.
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), int(bytes(raw[1]))

    def base_sample(self, index: int) -> tuple[torch.Tensor, int]:
        """Read one sample; what is wrong with it names the file."""
        with naming(self.path_of(index)):
            return self.decode(self.read(index))

    def path_of(self, index: int) -> str:
        """Give the path of the image behind a sample."""
        return path_at(self._paths, index)

    def source_paths(self) -> Iterator[str]:
        """Give every file behind the dataset."""
        return (path_at(self._paths, index) for index in range(len(self._paths)))

    def sample_structure(self) -> str | None:
        """Declare the structure of a sample, where every image has one size."""
        return None if self.size is None else f"(uint8[3,{self.size[0]},{self.size[1]}], int)"


def image_files(root: Path) -> list[Path]:
    """Give the images under a folder, but for hidden ones, in the order of their paths.

    Raises:
        DatasetError: There is no such folder, or it holds no image.
    """
    if not root.is_dir():
        raise DatasetError(f"the folder of images must exist, got {os.fspath(root)!r} in {Path.cwd()}")
    found = visible_files(root, IMAGE_SUFFIXES)
    if not found:
        raise DatasetError(f"there is no image under {root} ({', '.join(IMAGE_SUFFIXES)})")
    return found
