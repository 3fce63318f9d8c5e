"""Street scenes laid out as Cityscapes has them: images, and label ids turned into categories."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from autotune.data.datasets.cityscapes_labels import Target, check_label_ids, check_target, map_label_ids
from autotune.data.datasets.file_reading import file_bytes, naming
from autotune.data.datasets.image_decoders import decode_image, open_header
from autotune.data.datasets.windows import Size, as_size
from autotune.data.stages import Raw, StagedDataset
from autotune.data.transforms.augmentation import SeededAugmentation, check_layout
from autotune.data.transforms.device_normalization import NormalizesImages, check_normalize_on
from autotune.errors import DatasetError, SampleError, SpecError

FrameId = tuple[str, str, str]
"""City, sequence and frame, as the names of the files have them."""

Channels = Literal["first", "last"]

IMAGE_FOLDER, IMAGE_SUFFIX = "leftImg8bit", "_leftImg8bit.png"
LABEL_FOLDER, LABEL_SUFFIX = "gtFine", "_gtFine_labelIds.png"

_NAME = re.compile(r"(?P<city>.+)_(?P<sequence>[^_]+)_(?P<frame>[^_]+)")
_SHOWN = 5
"""Files that a message names."""


class CityscapesDataset(StagedDataset):
    """Images with the categories of their pixels, in a tree as Cityscapes is handed out.

    Images are `<root>/leftImg8bit/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit.png`, masks
    `<root>/gtFine/<split>/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png`.

    A sample is `(image, mask)`. The image is resized bilinearly: float32 `(3, H, W)` from 0 to 1, or uint8 where it is
    not normalised; with `channels="last"` it is `(H, W, 3)`. The mask is uint8 `(H, W)`, resized to the nearest pixel.
    Augmentation sees 8-bit pixels, as Albumentations is made for; normalisation comes after it.

    Args:
        root: Folder that holds `leftImg8bit` and `gtFine`.
        split: Folder inside them: `train`, `val` or `test`.
        ids: City, sequence and frame of each sample; None takes every image, in the order of their ids. Numbers are
            written with six digits.
        image_dir: Folder of the cities' images, in place of `<root>/leftImg8bit/<split>`.
        label_dir: Folder of the cities' masks, in place of `<root>/gtFine/<split>`.
        size: Height and width of a sample.
        normalize: Whether images are divided by 255.
        normalize_on: Where: `loader` where samples are loaded, or `device` in whole batches after the transfer, by
            `device_transform`. Samples are uint8 then, a quarter of the bytes.
        target: What a mask holds: `category` (8 of them), `id` (34 label ids) or `train_id` (19, others 255).
        channels: Where the channels of an image are: `first` as torch has them, `last` as Keras does.
        augmentation: A transform of Albumentations, or a `SeededAugmentation`; both parts get the same draw. It keeps
            size, channels and 8-bit pixels (one that normalises by itself goes with `normalize=True`, which then
            leaves it at that); masks keep their values.
        seed: Seed of the augmentation.

    Attributes:
        ids: City, sequence and frame of each sample, text `(samples, 3)`.
        normalize: Whether images are divided by 255 where they are loaded.
        device_transform: What normalises batches on the device; None where the loader does, or nothing.

    Raises:
        DatasetError: A folder is missing or empty, or images and masks do not belong together; the message lists them.
        SpecError: A setting is not possible.
    """

    unfingerprinted = ("augmentation", "image_dir", "label_dir", "split")
    part_names = ("image.png", "labels.png")

    def __init__(
        self,
        root: str | os.PathLike[str] = "data/raw",
        split: str = "train",
        *,
        ids: Iterable[Sequence[str | int]] | None = None,
        image_dir: str | os.PathLike[str] | None = None,
        label_dir: str | os.PathLike[str] | None = None,
        size: Size = (512, 512),
        normalize: bool = True,
        normalize_on: str = "loader",
        target: str = "category",
        channels: str = "first",
        augmentation: Any = None,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        if channels not in ("first", "last"):
            raise SpecError(f"channels must be 'first' or 'last', got {channels!r}")
        self.size = as_size(size, "size")
        on_device = check_normalize_on(normalize_on) == "device"
        if on_device and not normalize:
            raise SpecError("normalize_on='device' normalises images, got it beside normalize=False; leave one out")
        self.normalize = normalize and not on_device
        self.device_transform = NormalizesImages([0.0], [255.0]) if on_device else None
        self.target: Target = check_target(target)
        self.channels: Channels = "first" if channels == "first" else "last"
        self.split = split
        self.image_dir = _folder(image_dir, Path(root), IMAGE_FOLDER, split)
        self.label_dir = _folder(label_dir, Path(root), LABEL_FOLDER, split)
        self.augmentation = _seeded(augmentation)
        self._finished_when_decoded = augmentation is None  # what is stored differs, so the fingerprint does
        found = _paired_ids(self.image_dir, self.label_dir) if ids is None else _given_ids(ids)
        if ids is not None:
            _check_files(self.image_dir, self.label_dir, found)
        self.ids: npt.NDArray[np.str_] = np.array(found, dtype=np.str_).reshape(len(found), 3)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Raw:
        """Give the bytes of the image and of the mask."""
        image, labels = self.paths_of(index)
        return file_bytes(image), file_bytes(labels)

    def decode(self, raw: Raw) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn the bytes of both files into a sample; without normalisation and layout where it will be augmented."""
        image, labels = bytes(raw[0]), bytes(raw[1])
        mask = self._decoded_mask(labels, _image_size(image))
        return self._decoded(self._decoded_image(image), mask)

    def base_sample(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Read one sample before augmentation; what is wrong with it names the file."""
        image_path, label_path = self.paths_of(index)
        image, labels = self.read(index)
        with naming(image_path):
            image_size = _image_size(image)
            pixels = self._decoded_image(image)
        with naming(label_path):
            mask = self._decoded_mask(labels, image_size)
        return self._decoded(pixels, mask)

    @property
    def augment(self) -> Callable[[Any, torch.Generator], tuple[torch.Tensor, torch.Tensor]] | None:
        """The random stage; None where there is no augmentation."""
        return None if self.augmentation is None else self._augmented

    def paths_of(self, index: int) -> tuple[str, str]:
        """Give the paths of the image and of the mask behind a sample."""
        city, *_ = identity = self._id(index)
        name = "_".join(identity)
        return (
            str(self.image_dir / city / f"{name}{IMAGE_SUFFIX}"),
            str(self.label_dir / city / f"{name}{LABEL_SUFFIX}"),
        )

    def path_of(self, index: int) -> str:
        """Give the path of the image behind a sample."""
        return self.paths_of(index)[0]

    def source_paths(self) -> Iterator[str]:
        """Give every file behind the dataset."""
        return (path for index in range(len(self)) for path in self.paths_of(index))

    def sample_structure(self) -> str:
        """Declare the structure of a sample, which augmentation is taken to leave as it is."""
        height, width = self.size
        shape = f"3,{height},{width}" if self.channels == "first" else f"{height},{width},3"
        return f"({'float32' if self.normalize else 'uint8'}[{shape}], uint8[{height},{width}])"

    def _id(self, index: int) -> FrameId:
        city, sequence, frame = self.ids[index].tolist()
        return city, sequence, frame

    def _decoded_image(self, data: bytes) -> npt.NDArray[np.uint8]:
        return decode_image(data, "pil", self.size)

    def _decoded_mask(self, data: bytes, image_size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """Decode label ids as they are, resize to the nearest pixel, and look them up."""
        image = open_header(data).image
        if image.size != image_size:
            raise SampleError(
                f"the mask has {image.size[0]} x {image.size[1]} pixels and its image {image_size[0]} x "
                f"{image_size[1]}; both must be of one size"
            )
        if image.mode not in ("L", "P"):
            raise SampleError(
                f"label ids are a PNG of one 8-bit channel, got mode {image.mode!r} of PIL; files named "
                "..._labelIds.png hold them"
            )
        height, width = self.size
        try:
            ids = np.asarray(image)
        except Exception as error:  # PIL's plugins raise anything on damaged data
            raise SampleError(f"the label ids cannot be decoded: {error or type(error).__name__}") from error
        check_label_ids(ids)  # all of them: resizing may leave out what is unknown
        if ids.shape != self.size:
            ids = np.asarray(image.resize((width, height), 0))  # PIL's number for the nearest pixel
        return map_label_ids(ids, self.target)

    def _decoded(self, pixels: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        if self._finished_when_decoded:
            return self._finished(pixels, mask)
        return torch.from_numpy(pixels), torch.from_numpy(mask)

    def _augmented(self, sample: Any, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, mask = sample
        changed = self.augmentation(generator, image=pixels.numpy(), mask=mask.numpy())  # type: ignore[misc]  # not None
        converted = self.normalize or self.device_transform is not None  # which says what it takes by itself
        kept = (np.uint8, np.float32) if converted else (np.uint8,)
        check_layout("image", changed["image"], size=self.size, channels=3, dtypes=kept)
        check_layout("mask", changed["mask"], size=self.size, channels=1, dtypes=(np.uint8,))
        return self._finished(changed["image"], changed["mask"])

    def _finished(self, pixels: npt.NDArray[Any], mask: npt.NDArray[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalise and put the channels where they are wanted."""
        ordered = pixels.transpose(2, 0, 1) if self.channels == "first" else pixels
        if self.normalize:
            image = np.empty(ordered.shape, np.float32)
            if ordered.dtype == np.uint8:
                np.divide(ordered, np.float32(255), out=image)
            else:  # an augmentation that normalises by itself
                image[...] = ordered
        else:
            if self.device_transform is not None and ordered.dtype != np.uint8:
                raise SpecError(
                    f"normalize_on='device' takes an augmentation that leaves pixels uint8, got {ordered.dtype}; leave "
                    "normalising out of the augmentation, or take normalize_on='loader'"
                )
            image = np.ascontiguousarray(ordered)
        return torch.from_numpy(image), torch.from_numpy(np.ascontiguousarray(mask))


def _seeded(augmentation: Any) -> SeededAugmentation | None:
    if augmentation is None or isinstance(augmentation, SeededAugmentation):
        return augmentation
    return SeededAugmentation(augmentation)


def _folder(given: str | os.PathLike[str] | None, root: Path, kind: str, split: str) -> Path:
    folder = Path(given) if given is not None else root / kind / split
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: there is no such folder; the tree is <root>/{IMAGE_FOLDER}/<split>/<city>/ and "
            f"<root>/{LABEL_FOLDER}/<split>/<city>/, or give image_dir and label_dir"
        )
    return folder


def _paired_ids(image_dir: Path, label_dir: Path) -> list[FrameId]:
    """Find all images and all masks, which must be the same frames."""
    images, labels = _found_ids(image_dir, IMAGE_SUFFIX), _found_ids(label_dir, LABEL_SUFFIX)
    if not images:
        raise DatasetError(f"{image_dir}: there is no image named <city>/<city>_<sequence>_<frame>{IMAGE_SUFFIX}")
    _check_same(
        [image_dir / _relative(one, IMAGE_SUFFIX) for one in sorted(images - labels)],
        [label_dir / _relative(one, LABEL_SUFFIX) for one in sorted(labels - images)],
    )
    return sorted(images)


def _check_same(without_mask: Sequence[Path], without_image: Sequence[Path]) -> None:
    told = []
    if without_mask:
        told.append(f"{len(without_mask)} images have no mask: {_listed(without_mask)}")
    if without_image:
        told.append(f"{len(without_image)} masks have no image: {_listed(without_image)}")
    if told:
        raise DatasetError(f"each image needs the mask of the same city, sequence and frame; {'; '.join(told)}")


def _found_ids(folder: Path, suffix: str) -> set[FrameId]:
    found: set[FrameId] = set()
    wrong: list[Path] = []
    for path in folder.glob(f"*/*{suffix}"):
        match = _NAME.fullmatch(path.name.removesuffix(suffix))
        if match is None or match["city"] != path.parent.name:
            wrong.append(path)
        else:
            found.add((match["city"], match["sequence"], match["frame"]))
    if wrong:
        raise DatasetError(f"files are named <city>/<city>_<sequence>_<frame>{suffix}, got {_listed(sorted(wrong))}")
    return found


def _given_ids(ids: Iterable[Sequence[str | int]]) -> list[FrameId]:
    given = [_checked_id(one) for one in ids]
    if not given:
        raise DatasetError("at least one id is needed, got none; ids=None takes every image")
    return given


def _checked_id(given: Sequence[Any]) -> FrameId:
    parts = [f"{part:06d}" if isinstance(part, Integral) else str(part) for part in given]
    if isinstance(given, str) or len(parts) != 3 or any(not part or "/" in part or part == ".." for part in parts):
        raise SpecError(f"an id is (city, sequence, frame), got {given!r}")
    return parts[0], parts[1], parts[2]


def _check_files(image_dir: Path, label_dir: Path, ids: Iterable[FrameId]) -> None:
    wanted = [
        folder / _relative(one, suffix)
        for one in ids
        for folder, suffix in ((image_dir, IMAGE_SUFFIX), (label_dir, LABEL_SUFFIX))
    ]
    missing = [path for path in wanted if not path.is_file()]
    if missing:
        raise DatasetError(f"each id needs an image and a mask; {len(missing)} are missing: {_listed(missing)}")


def _relative(identity: FrameId, suffix: str) -> str:
    return f"{identity[0]}/{'_'.join(identity)}{suffix}"


def _listed(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(map(str, paths[:_SHOWN])) + more


def _image_size(data: bytes) -> tuple[int, int]:
    width, height = open_header(data).image.size
    return width, height


__all__ = ["CityscapesDataset", "FrameId"]
