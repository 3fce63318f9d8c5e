"""Albumentations transforms that draw from a dataset's own generator."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from autotune.data.extras import needed
from autotune.data.transforms.per_thread import PerThread

Pixels = npt.NDArray[Any]


class SeededAugmentation:
    """Applies an Albumentations transform whose draws come from a torch generator alone.

    All targets of a call get the same draws: `image` and `mask` are what Albumentations takes them for, and a name
    that the transform does not know (`condition`, say) is a further image. The given transform is not changed,
    neither is any global generator, and several threads may call one object. (Importing Albumentations asks its
    server for a newer version, unless the environment has `NO_ALBUMENTATIONS_UPDATE=1`.)

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
        """
        seed = int(torch.randint(2**63 - 1, (), generator=generator).item())
        transform = self._transform.mine()  # as a transform keeps the draws of a call in itself
        unknown = {name: "image" for name in targets if name not in transform.available_keys}
        if unknown:  # which Albumentations would hand back as they are
            transform.add_targets(unknown)
        # Not set_random_seed: that starts every transform inside at the same number, and so flips along one axis
        # would come with flips along the other, always.
        transform.set_random_state(np.random.default_rng(seed), random.Random(seed))  # noqa: S311  # no secret
        augmented = transform(**targets)
        return {name: np.ascontiguousarray(augmented[name]) for name in targets}

    def __repr__(self) -> str:
        return f"SeededAugmentation({self.description})"


def _described(transform: Any) -> str:
    try:
        return json.dumps(transform.to_dict()["transform"], sort_keys=True, default=repr)
    except Exception:  # noqa: BLE001  # a transform of the caller's that cannot be written down
        return ", ".join(_names(transform))


def _names(transform: Any) -> list[str]:
    name = f"{type(transform).__module__}.{type(transform).__qualname__}"
    return [name, *(inner for part in getattr(transform, "transforms", ()) for inner in _names(part))]


__all__ = ["SeededAugmentation"]
