"""Albumentations transforms that draw from a dataset's own generator."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from autotune.data.extras import needed
from autotune.data.transforms.clipping import watch_clipping
from autotune.data.transforms.per_thread import PerThread
from autotune.errors import SpecError

Pixels = npt.NDArray[Any]

_NAMED = ("image", "images", "mask", "masks", "volume", "volumes", "mask3d", "masks3d")
"""What Albumentations takes for images and masks by name, whether or not a transform in the composition does."""


class SeededAugmentation:
    """Applies an Albumentations transform whose draws come from a torch generator alone.

    All targets of a call get the same draws. `image` is an image and `mask` a mask, which is moved with its image
    and keeps its values whatever happens to colours; a name that the transform does not know (`condition`, say) is
    a further image. The given transform is not changed, neither is any global generator, and several threads may
    call one object. (Importing Albumentations asks its server for a newer version, unless the environment has
    `NO_ALBUMENTATIONS_UPDATE=1`.)

    Most transforms of Albumentations that change colours, brightness or noise clip float images to 0 to 1, and some
    (`RandomGamma`) make NaN of negative values. For images with other values (heights in metres, z-scores) both are
    refused as soon as they happen; what only moves pixels (flips, turns, shifts) keeps any values. Images from -0.2
    to 1.2 count as ones from 0 to 1 whose edges an interpolation overshot, and are clipped without a word.

    Args:
        transform: A transform of Albumentations, a composition of them, or a list, which is composed.

    Attributes:
        description: The transform as text, the same in every process: what a fingerprint sees.

    Raises:
        MissingExtraError: Albumentations is not installed.
    """

    # Outside the dictionary, which fingerprints describe: compositions hold generators.
    __slots__ = ("__dict__", "_transform")

    def __init__(self, transform: Any) -> None:
        albumentations = needed("albumentations", "augmentation")
        if isinstance(transform, list | tuple):
            transform = albumentations.Compose(list(transform))
        elif not isinstance(transform, albumentations.Compose):
            transform = albumentations.Compose([transform])
        self.description = _described(transform)
        self._transform = PerThread(transform)

    def __call__(self, generator: torch.Generator, **targets: Pixels) -> dict[str, Pixels]:
        """Augment arrays of one sample alike.

        Args:
            generator: What everything random is drawn from; one number is taken for each call.
            **targets: Arrays `(H, W)` or `(H, W, channels)` of one height and width.

        Raises:
            SpecError: A transform clipped an image to 0 to 1 whose values lie further outside than by 0.2, or made
                values of an image NaN or infinite.
        """
        seed = int(torch.randint(2**63 - 1, (), generator=generator).item())
        transform = self._transform.mine()  # as a transform keeps the draws of a call in itself
        watch_clipping(transform)
        known = {*transform.available_keys, *_NAMED}
        unknown = {name: "image" for name in targets if name not in known}
        if unknown:  # which Albumentations would hand back as they are
            transform.add_targets(unknown)
        # Not set_random_seed: that starts every transform inside at the same number, and so flips along one axis
        # would come with flips along the other, always.
        transform.set_random_state(np.random.default_rng(seed), random.Random(seed))  # noqa: S311  # no secret
        augmented = transform(**targets)
        return {name: np.ascontiguousarray(augmented[name]) for name in targets}

    def __repr__(self) -> str:
        return f"SeededAugmentation({self.description})"


class ImageAugmentation:
    """Applies an Albumentations transform as a dataset's `transform` of images, drawing from torch's global generator.

    Datasets seed that one for each sample, so a result belongs to seed, epoch and index. An image of PIL or an array
    becomes an array, a tensor stays one; both are `(H, W)` or `(H, W, channels)`.

    Args:
        transform: What `SeededAugmentation` takes, or one.
    """

    def __init__(self, transform: Any) -> None:
        made = transform if isinstance(transform, SeededAugmentation) else SeededAugmentation(transform)
        self.augmentation = made

    def __call__(self, image: Any) -> Any:
        """Augment one image."""
        is_tensor = isinstance(image, torch.Tensor)
        pixels = np.array(image.numpy() if is_tensor else image)  # a copy, as a transform may work in place
        made = self.augmentation(torch.default_generator, image=pixels)["image"]
        return torch.from_numpy(made) if is_tensor else made


def is_augmentation(value: Any) -> bool:
    """Tell whether something is a transform of Albumentations or a `SeededAugmentation`."""
    if isinstance(value, SeededAugmentation):
        return True
    return any(cls.__module__.partition(".")[0] == "albumentations" for cls in type(value).__mro__)


def check_layout(name: str, made: Pixels, *, size: tuple[int, int], channels: int, dtypes: tuple[Any, ...]) -> None:
    """Refuse an augmented array that a sample of the dataset cannot hold.

    Args:
        name: What the array is called, as the message says it.
        made: What came out, `(H, W)` or `(H, W, channels)`.
        size: Height and width that it must have.
        channels: Channels that it must have.
        dtypes: Types that it may have.

    Raises:
        SpecError: It has another size, other channels, or another type.
    """
    found = made.shape if made.ndim == 3 else (*made.shape, 1)
    if found != (*size, channels):
        raise SpecError(
            f"an augmentation keeps the size and the channels of samples, {name} {(*size, channels)}, got "
            f"{made.shape}; leave out what crops or resizes to another size, and ToTensorV2, as the dataset makes "
            "tensors by itself"
        )
    if made.dtype not in dtypes:
        allowed = " or ".join(str(np.dtype(one)) for one in dtypes)
        raise SpecError(
            f"an augmentation keeps the type of {name}, {allowed}, got {made.dtype}; leave out what converts it, such "
            "as Normalize or FromFloat"
        )


def _described(transform: Any) -> str:
    try:
        return json.dumps(transform.to_dict()["transform"], sort_keys=True, default=repr)
    except Exception:  # noqa: BLE001  # a transform of the caller's that cannot be written down
        return ", ".join(_names(transform))


def _names(transform: Any) -> list[str]:
    name = f"{type(transform).__module__}.{type(transform).__qualname__}"
    return [name, *(inner for part in getattr(transform, "transforms", ()) for inner in _names(part))]


__all__ = ["ImageAugmentation", "SeededAugmentation", "check_layout", "is_augmentation"]
