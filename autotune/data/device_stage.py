"""The stage after the transfer: what a dataset does to a whole batch on the device, and nothing stores."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Subset

from autotune.errors import SpecError

DeviceTransform = Callable[[Any], Any]
"""Takes a batch on the device, as the loader collated it, and gives what training takes."""

_SMALL_BYTES = 1024**2
"""Arrays above this are data and no settings."""

DEVICE_TRANSFORM = "device_transform"
"""Name under which a dataset offers it."""


@runtime_checkable
class TransformsOnDevice(Protocol):
    """A dataset with work that is done for whole batches on the device, after the transfer.

    Optional for every dataset; a method, or an attribute that can be called (None is none). It takes what the
    loader's `collate_fn` made, in its nesting, with every tensor on the device, and gives the batch that training
    takes. It runs in the training process, never in a worker. Archives and caches keep samples as they are before it,
    so changing it leaves what is stored valid: it is no part of the source fingerprint. Settings that nothing but
    this stage reads belong into `unfingerprinted`.

    Measuring runs it for every configuration inside the timed window, between transfer and step. In training it runs
    in whatever moves batches itself (`autotune.loaders.EfficientDataLoader`, `TunedDataModule` of Lightning). A loader
    of `autotune.best_loader` gives batches on the host and leaves both to the caller:

        for batch in autotune.best_loader(dataset):
            batch = dataset.device_transform(moved(batch))
    """

    def device_transform(self, batch: Any) -> Any:
        """Give the batch that training takes."""


def device_transform_of(dataset: Any) -> DeviceTransform | None:
    """Find the device transform of a dataset behind `Subset`, `ConcatDataset`, archives and caches; None without one.

    One that is set on `Subset` or `ConcatDataset` itself counts before those inside.

    Parts of a `ConcatDataset` share batches, so theirs must be equal: one object, or objects of one class with equal
    attributes. Methods of two datasets are different, as what they read cannot be known; give such datasets an object
    as the attribute `device_transform`, or set it on the `ConcatDataset`.

    Raises:
        SpecError: It cannot be called, or the parts of a `ConcatDataset` have different ones.
    """
    source = _inside(dataset)
    if source is None:
        return _checked(dataset, getattr(dataset, DEVICE_TRANSFORM, None))
    own = getattr(dataset, "__dict__", {}).get(DEVICE_TRANSFORM) or getattr(type(dataset), DEVICE_TRANSFORM, None)
    if own is not None:
        return _checked(dataset, getattr(dataset, DEVICE_TRANSFORM))
    if not isinstance(source, list):
        return device_transform_of(source)
    return _common(source)


def _inside(dataset: Any) -> Any:
    """Give the dataset that another one stands before, a list of several, or None."""
    from autotune.data.streaming import StreamedArchive  # which stand on the stages
    from autotune.data.wrapped import WrappedDataset

    if isinstance(dataset, Subset):
        return dataset.dataset
    if isinstance(dataset, ConcatDataset):
        return list(dataset.datasets)
    if isinstance(dataset, WrappedDataset | StreamedArchive):
        return vars(dataset).get("source")
    return None


def _checked(dataset: Any, transform: Any) -> DeviceTransform | None:
    if transform is None:
        return None
    if not callable(transform):
        raise SpecError(
            f"device_transform takes a batch and gives one, got {type(transform).__name__} on "
            f"{type(dataset).__qualname__}; make it a method or None"
        )
    found: DeviceTransform = transform
    return found


def plain_settings(owner: Any) -> dict[str, Any]:
    """Give the numbers, texts and small arrays among the attributes of an object: what its methods go by."""
    return {name: value for name, value in getattr(owner, "__dict__", {}).items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, torch.Tensor | np.ndarray):
        return value.nbytes <= _SMALL_BYTES
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def _common(parts: list[Any]) -> DeviceTransform | None:
    found = [device_transform_of(part) for part in parts]
    if all(_do_the_same(transform, found[0]) for transform in found):
        return found[0] if found else None
    names = ", ".join(dict.fromkeys(type(part).__qualname__ for part in parts))
    raise SpecError(
        f"batches of a ConcatDataset mix samples of its parts, which must have equal device transforms, got different "
        f"ones in {names}; set device_transform on the ConcatDataset itself"
    )


def _do_the_same(one: Any, other: Any) -> bool:
    equality: Any = type(one).__eq__
    if type(one) is type(other) and equality is object.__eq__:
        return _are_alike(one, other)
    return bool(one == other)  # methods: of one dataset alone, as what they read of another one cannot be known


def _are_alike(one: Any, other: Any) -> bool:
    from autotune.data.fingerprint import described_alike  # which stands on this module

    # Functions of equal code may find other globals.
    by_identity = isinstance(one, FunctionType | functools.partial)
    return one is other or (not by_identity and described_alike(one, other))


__all__ = ["DEVICE_TRANSFORM", "DeviceTransform", "TransformsOnDevice", "device_transform_of", "plain_settings"]
