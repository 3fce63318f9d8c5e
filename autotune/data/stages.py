"""The three stages of a sample: `read` (bytes), `decode` (deterministic), `augment` (random, never stored)."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import MethodType
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from autotune.data.copying import bare_copy, object_copy, own_copy
from autotune.data.epochs import Epoch
from autotune.errors import SampleError

Raw = Sequence[bytes]


@runtime_checkable
class Staged(Protocol):
    """A dataset that tells its stages apart, so that the first two can be stored.

    A third method `augment(sample, generator) -> sample` is optional: it holds everything random,
    draws from the given `torch.Generator` only, and its result is never stored. An attribute
    `staged = False`, of the class or of one dataset, takes the offer back: for a class whose `read` and
    `decode` mean something else, or a dataset that is staged with some settings only.
    """

    def __len__(self) -> int:
        """Give the number of samples."""

    def read(self, index: int) -> Raw:
        """Give the original bytes of one sample, one bytes object for each part."""

    def decode(self, raw: Raw) -> Any:
        """Turn those bytes into a sample, the same each time."""


class StagedDataset(Dataset[Any]):
    """Base of datasets in stages: item = `augment(decode(read(index)))`.

    `augment` gets a generator that is seeded by `(seed, epoch, index)`, so a sample of an epoch is the
    same at every worker count and behind every archive and cache. Loaders of autotune begin each pass with the next
    epoch, until the caller sets one here; with torch's own `DataLoader` the caller sets each.

    The epoch belongs to the dataset: loaders over it, and over `Subset`s of it, share the one that the last pass began.
    Where one of them shuffles (by a sampler of autotune, from its first pass on and while it lives), passes in order
    leave the epoch to it, so that validation in the middle of an epoch of training moves nothing; unless an epoch is
    set on their sampler or loader. Two that shuffle, and streams, move it with every pass: give each a dataset of its
    own where passes overlap.

    Args:
        seed: Seed of the augmentation.
    """

    staged: bool = True
    unfingerprinted: tuple[str, ...] = ("seed", "_epoch")
    """Attributes that leave stored samples as they are; those of base classes count too."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self._epoch = Epoch()

    def read(self, index: int) -> Raw:
        """Give the original bytes of one sample, one bytes object for each part."""
        raise NotImplementedError

    def decode(self, raw: Raw) -> Any:
        """Turn those bytes into a sample, the same each time."""
        raise NotImplementedError

    def base_sample(self, index: int) -> Any:
        """Give the sample before augmentation, which may be stored."""
        return self.decode(self.read(index))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that augmentation is seeded with, in running workers too; passes of loaders leave it so.

        It stays, as a dataset counts no passes. To go on from an epoch, set it on the sampler or loader, or here before
        each pass.
        """
        self._epoch.set(epoch)

    def begin_epoch(self, epoch: int, *, steered: bool = False) -> None:
        """Enter an epoch as a pass of a loader begins, unless the caller has set one, or no stage is random.

        Args:
            epoch: The epoch.
            steered: Whether the caller set it at the loader, which wins over what was set here before.
        """
        kept = vars(self).get("_epoch")  # a class that augments in a way of its own may do without
        if isinstance(kept, Epoch) and _is_random(self):  # a copy without the stage shares it with one that has it
            kept.begin(epoch, steered=steered)

    def augment_sample(self, sample: Any, index: int) -> Any:
        """Apply `augment`, where there is one, as it comes out in the current epoch."""
        augment = getattr(self, "augment", None)
        if augment is None:
            return sample
        return augment(sample, augment_generator(self.seed, self._epoch.number, index))

    def __getitem__(self, index: int) -> Any:
        place = place_of(index, len(self))  # type: ignore[arg-type]  # subclasses have a length
        return self.augment_sample(self.base_sample(place), place)


def place_of(index: int, count: int) -> int:
    """Give the place that an index means, which may be counted from the end.

    Raises:
        IndexError: There are not so many samples.
    """
    if not -count <= index < count:
        raise IndexError(f"index must be under {count}, got {index}")
    return int(index) % count


def augment_generator(seed: int, epoch: int, index: int) -> torch.Generator:
    """Give the generator that one sample is augmented with in one epoch."""
    text = f"{seed} {epoch} {index}".encode()
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    return torch.Generator().manual_seed(number & (2**63 - 1))


def locate(dataset: Any, index: int) -> tuple[Any, int]:
    """Follow `Subset` and `ConcatDataset` down to the dataset that holds the sample, and its place there."""
    while True:
        if type(dataset) is Subset:
            dataset, index = dataset.dataset, int(dataset.indices[index])
        elif type(dataset) is ConcatDataset:
            index = place_of(index, len(dataset))
            part = next(number for number, end in enumerate(dataset.cumulative_sizes) if index < end)
            index -= dataset.cumulative_sizes[part - 1] if part else 0
            dataset = dataset.datasets[part]
        else:
            return dataset, index if index >= 0 else place_of(index, len(dataset))


def leaves_of(dataset: Any) -> list[Any]:
    """Give the datasets that `Subset` and `ConcatDataset` are made of."""
    if type(dataset) is Subset:
        return leaves_of(dataset.dataset)
    if type(dataset) is ConcatDataset:
        return [leaf for part in dataset.datasets for leaf in leaves_of(part)]
    return [dataset]


def _takers_of(dataset: Any) -> list[Any]:
    """Give the datasets that epochs are for; subclasses of `Subset` and `ConcatDataset` are looked into as well.

    Where they give samples or take epochs in a way of their own, they are taken as they are.
    """
    if _merely_is(dataset, Subset):
        return _takers_of(dataset.dataset)
    if _merely_is(dataset, ConcatDataset):
        return [taker for part in dataset.datasets for taker in _takers_of(part)]
    return [dataset]


def _merely_is(dataset: Any, kind: type) -> bool:
    names = ("__getitem__", "__getitems__", "set_epoch", "begin_epoch")
    return isinstance(dataset, kind) and all(
        getattr(type(dataset), name, None) is getattr(kind, name, None) for name in names
    )


def set_epoch(dataset: Any, epoch: int) -> None:
    """Set the epoch of every dataset at the bottom that takes one; passes of loaders leave a map-style one in it."""
    for leaf in _takers_of(dataset):
        if callable(getattr(leaf, "set_epoch", None)):
            leaf.set_epoch(epoch)


def begin_epoch(dataset: Any, epoch: int, *, steered: bool = False, leads: bool = True) -> None:
    """Tell every dataset at the bottom which epoch the pass is that begins.

    One on which the caller has set an epoch stays in it. A class that has `set_epoch` alone is told only what the
    caller steers: whether he sets its epochs himself does not show. Below a subclass of `Subset` or `ConcatDataset`
    that has a `__getitem__` of its own nothing is told; it may have `begin_epoch` or `set_epoch` and pass it on.

    Args:
        dataset: The dataset.
        epoch: The epoch.
        steered: Whether the caller set it where the pass begins, on a sampler or loader, which wins over what was
            set on the dataset before.
        leads: Whether the epochs of datasets that a shuffling sampler leads are moved too.
    """
    for leaf in _takers_of(dataset):
        if not leads and any(kept.is_led for kept in epochs_of(leaf)):
            continue
        if callable(getattr(leaf, "begin_epoch", None)):
            leaf.begin_epoch(epoch, steered=steered)
        elif steered and callable(getattr(leaf, "set_epoch", None)):
            leaf.set_epoch(epoch)


def follows_passes(dataset: Any) -> bool:
    """Tell whether some sample is random by the epoch that passes begin."""
    return any(callable(getattr(leaf, "begin_epoch", None)) and _is_random(leaf) for leaf in _takers_of(dataset))


def epochs_of(dataset: Any) -> list[Epoch]:
    """Give the epochs of the datasets at the bottom that samples are random by, behind archives and caches too."""
    from autotune.data.wrapped import WrappedDataset  # which stands on this module

    found: list[Epoch] = []
    for leaf in _takers_of(dataset):
        kept = getattr(leaf, "__dict__", {}).get("_epoch")
        if isinstance(leaf, WrappedDataset):
            found += epochs_of(leaf.source)
        elif isinstance(kept, Epoch) and _is_random(leaf):
            found.append(kept)
    return found


def _is_random(leaf: Any) -> bool:
    known = getattr(leaf, "augments_samples", None)
    return known if isinstance(known, bool) else callable(getattr(leaf, "augment", None))


def is_staged(dataset: Any) -> bool:
    """Tell whether `read` and `decode`, each with one argument, are offered for every sample."""
    return all(
        bool(getattr(leaf, "staged", True))
        and _takes_one(getattr(leaf, "read", None))
        and _takes_one(getattr(leaf, "decode", None))
        for leaf in leaves_of(dataset)
    )


def _takes_one(method: Any) -> bool:
    if isinstance(method, MethodType):
        return _binds(method.__func__, 2)
    return callable(method) and _binds.__wrapped__(method, 1)


@lru_cache(maxsize=64)  # asked for every sample
def _binds(function: Callable[..., Any], count: int) -> bool:
    """Tell whether a function can be called with so many positional arguments and no others."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a builtin that does not tell
        return True
    return True


def has_augment(dataset: Any) -> bool:
    """Tell whether some sample goes through an `augment` stage."""
    return any(_leaf_augments(leaf) for leaf in leaves_of(dataset))


def _leaf_augments(leaf: Any) -> bool:
    # A dataset wrapped by an archive or cache knows it; below it there may be a `Subset` without these methods.
    known = getattr(leaf, "augments_samples", None)
    if isinstance(known, bool):
        return known
    return is_staged(leaf) and callable(getattr(leaf, "augment", None))


def read_stage(dataset: Any, index: int) -> tuple[bytes, ...]:
    """Read the original bytes of one sample."""
    leaf, place = locate(dataset, index)
    raw = leaf.read(place)
    parts = (raw,) if isinstance(raw, bytes | bytearray | memoryview) else raw
    return tuple(bytes(part) for part in parts)


def decode_stage(dataset: Any, index: int, raw: Raw) -> Any:
    """Decode the bytes of one sample; an error names the file where the dataset can tell it."""
    leaf, place = locate(dataset, index)
    try:
        return leaf.decode(raw)
    except SampleError as error:
        path_of = getattr(leaf, "path_of", None)
        if error.path is not None or path_of is None:
            raise
        raise SampleError(error.message, str(path_of(place))) from error


def base_sample(dataset: Any, index: int) -> Any:
    """Read the deterministic part of one sample: what may be stored."""
    leaf, place = locate(dataset, index)
    own = getattr(leaf, "base_sample", None)
    if own is not None:
        return own(place)
    if is_staged(leaf):
        return leaf.decode(leaf.read(place))
    return leaf[place]


class Augmentation:
    """The random stage over stored samples of a dataset; a no-op where there is none."""

    def __init__(self) -> None:
        self._epoch = Epoch()

    def set_epoch(self, dataset: Any, epoch: int) -> None:
        """Set the epoch here and in the dataset, in running workers too; passes of loaders leave it as it is."""
        self._epoch.set(epoch)
        set_epoch(dataset, epoch)

    def begin_epoch(self, dataset: Any, epoch: int, *, steered: bool) -> None:
        """Enter an epoch here and in the dataset as a pass begins, unless the caller has set one."""
        if self._epoch.begin(epoch, steered=steered):
            begin_epoch(dataset, epoch, steered=steered)

    def apply(self, dataset: Any, sample: Any, index: int) -> Any:
        """Augment one sample as the dataset itself would in the current epoch."""
        leaf, place = locate(dataset, index)
        own = getattr(leaf, "augment_sample", None)
        if own is not None:
            return own(sample, place)
        augment = getattr(leaf, "augment", None) if is_staged(leaf) else None
        if augment is None:
            return sample
        return augment(sample, augment_generator(0, self._epoch.number, place))


def apart(dataset: Any) -> Any:
    """Copy a dataset so far that reading the copy leaves the caller's objects as they are.

    What is opened on first use (`_file = None` until then) is opened in the copy, so the dataset itself can
    still be forked into workers. Copied are the datasets at the bottom of `Subset`, `ConcatDataset` and our own
    wrappers, and of their attributes the plain containers, objects of Python classes (a reader, a dataset inside)
    and those named in `unfingerprinted`, which are handles and memos; everything else is shared.
    """
    return _apart(dataset, {})


def _apart(dataset: Any, done: dict[int, Any]) -> Any:
    from autotune.data.wrapped import WrappedDataset  # which stands on this module

    if id(dataset) in done:
        return done[id(dataset)]
    if type(dataset) is Subset:
        made: Any = Subset(_apart(dataset.dataset, done), dataset.indices)
    elif type(dataset) is ConcatDataset:
        made = ConcatDataset([_apart(part, done) for part in dataset.datasets])
    elif isinstance(dataset, WrappedDataset):
        made = bare_copy(dataset)
        made.source = _apart(dataset.source, done)
        if "_reader" in vars(made):  # an archive, which a copy opens again
            made.__dict__["_reader"] = own_copy(vars(made)["_reader"])
    else:
        made = object_copy(dataset, unfingerprinted_names(dataset))
    done[id(dataset)] = made
    return made


def unfingerprinted_names(dataset: Any) -> set[str]:
    """Give the attributes that a dataset's classes declare to leave its samples as they are."""
    return {name for cls in type(dataset).__mro__ for name in vars(cls).get("unfingerprinted", ())}
