"""MONAI's datasets in stages, so that they are tuned, stored and served like any other.

Of a `Compose`, everything before the first random transform is the part of a sample that archives and caches may
keep; the rest is augmentation, seeded for each sample and epoch, and the same at every worker count:

    dataset = StagedMonaiDataset(items, Compose([LoadImaged("image"), ..., RandFlipd("image", prob=0.5)]))
    autotune.tune(dataset, "2m", collate_fn=list_data_collate)
    loader = monai_loader(dataset, batch_size=8, shuffle=True)
"""

from __future__ import annotations

import copy
import importlib
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from autotune.data.distributed_epoch_sampler import DistributedEpochSampler
from autotune.data.extras import needed
from autotune.data.randomness import seeded_alone
from autotune.data.stages import StagedDataset, leaves_of
from autotune.data.transforms.per_thread import PerThread
from autotune.errors import AutotuneError, SampleError, SpecError
from autotune.resolve.best import best_loader
from autotune.resolve.distributed import Share, share_of
from autotune.resolve.resolution import warn_caller

_COMPOSED = ("map_items", "unpack_items", "log_stats", "lazy", "overrides")
"""What a `Compose` is told beside its transforms."""
_SEEDS = 2**32
_SEPARATORS = os.sep + (os.altsep or "")
_DEEPEST = 4
_READING = ("__len__", "__getitem__", "__getitems__", "_transform")
"""What makes a sample of an item in MONAI's datasets."""
_PLAIN_CLASSES = (
    "Dataset",
    "DatasetFunc",
    "CacheDataset",
    "PersistentDataset",
    "CacheNTransDataset",
    "LMDBDataset",
    "GDSDataset",
)
"""Classes of `monai.data` whose samples are their items, transformed; they differ in what they keep."""


class StagedMonaiDataset(StagedDataset):
    """What `monai.data.Dataset` gives, with the deterministic part of its transforms apart from the random part.

    Random is what MONAI takes for it: the first `Randomizable` transform, or the first callable that is none of
    MONAI's transforms (a function may draw from anywhere), and all that follow. A callable with the attribute
    `deterministic = True`, as those of `autotune.data.transforms` have it, is taken at its word. The random part
    starts from a seed of its own for each sample and epoch (`set_epoch`; `monai_loader` counts epochs by itself),
    and so do the global generators of Python, numpy and torch while it runs.

    Samples are made of plain tensors, which can be stored, not of `MetaTensor`.

    Args:
        data: Items, as MONAI takes them: dictionaries mostly, of paths.
        transform: A transform, a list of them or a `Compose`.
        keep_meta: Whether tensors stay `MetaTensor`; archives and caches refuse such samples.
        seed: Seed of the random part.

    Raises:
        MissingExtraError: MONAI is not installed.
    """

    staged = False  # decoding takes paths, not bytes
    unfingerprinted = ("_first", "_rest", "_structure", "augments_samples")

    def __init__(
        self,
        data: Sequence[Any],
        transform: Callable[..., Any] | Sequence[Callable[..., Any]] | None = None,
        *,
        keep_meta: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        compose = _flat(transform)
        first = compose.get_index_of_first(is_random)
        split = len(compose.transforms) if first is None else first
        self.data = data
        self.keep_meta = keep_meta
        # What the fingerprint sees, with what a Compose is told beside it: a copy, as MONAI's transforms change when
        # they are called.
        self.deterministic = copy.deepcopy(tuple(compose.transforms[:split]))
        self.composed = {name: getattr(compose, name) for name in _COMPOSED}
        self._first = self._compose(compose.transforms[:split])
        self._rest = PerThread(self._compose(compose.transforms[split:]))
        self._structure = _structure(compose.transforms, split)
        self.augments_samples = split < len(compose.transforms)

    @classmethod
    def of(cls, dataset: Any, *, keep_meta: bool = False, seed: int = 0) -> Self:
        """Take items and transforms of a dataset of MONAI's; what a `CacheDataset` has cached is left behind.

        Raises:
            SpecError: It makes its samples in a way of its own.
        """
        if not _transforms_items(dataset):
            raise SpecError(
                f"StagedMonaiDataset takes items and transforms of a dataset, and samples of "
                f"{type(dataset).__qualname__} are not its items, transformed; give StagedMonaiDataset(data, transform)"
            )
        return cls(dataset.data, dataset.transform, keep_meta=keep_meta, seed=seed)

    def __len__(self) -> int:
        return len(self.data)

    def base_sample(self, index: int) -> Any:
        """Apply the deterministic transforms to one item.

        Raises:
            SampleError: They fail; carries the item's first path.
        """
        item = self.data[index]
        try:
            return self._given(self._first(item))
        except AutotuneError:
            raise
        except Exception as error:  # whatever a transform raises
            raise SampleError(f"MONAI's transforms fail: {_cause(error)}", self.path_of(index)) from error

    def augment(self, sample: Any, generator: torch.Generator) -> Any:
        """Apply the random transforms, which draw from numbers that start from the generator alone."""
        if not self.augments_samples:
            return sample
        transform = self._rest.mine()
        seed = int(torch.randint(_SEEDS, (), generator=generator).item())
        transform.set_random_state(seed=seed)
        with seeded_alone(seed):  # functions draw from the global generators, and some transforms of MONAI's do
            return self._given(transform(sample))

    def path_of(self, index: int) -> str | None:
        """Give the first file or folder that an item names; None where it names none."""
        return next(map(os.fspath, _named(self.data[index])), None)

    def source_paths(self) -> Iterator[str]:
        """Give every file that an item names, and those in folders that it names, each folder once.

        A folder is named by a path object, or by text with a separator in it: `"images/7"`, but not `"liver"`.
        """
        walked: set[Path] = set()
        for item in self.data:
            for path in _named(item):
                if not path.is_dir():
                    yield os.fspath(path)
                elif path not in walked:
                    walked.add(path)
                    yield from (os.fspath(file) for file in sorted(path.rglob("*")) if file.is_file())

    def sample_structure(self) -> str:
        """Tell the transforms, as they decide what samples look like."""
        return self._structure

    def _compose(self, transforms: Sequence[Any]) -> Any:
        return _monai("monai.transforms").Compose(transforms, **self.composed)

    def _given(self, sample: Any) -> Any:
        return sample if self.keep_meta else plain(sample)


def monai_loader(
    dataset: Any,
    *,
    batch_size: int | None = None,
    shuffle: bool = False,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    loader_class: Callable[..., Any] | None = None,
    **arguments: Any,
) -> DataLoader[Any]:
    """Give MONAI's DataLoader over a dataset, configured as was measured best on this machine.

    Each iteration augments anew, and shuffles anew by the dataset's seed. Transforms that give several samples of an
    item are collated as MONAI does. Samples are divided as `autotune.best_loader` divides them: by `rank` and
    `world_size`, in an initialised process group, and under `torchrun`.

    Args:
        dataset: A `StagedMonaiDataset`, a `Subset` or `ConcatDataset` of them, or a dataset of MONAI's. One that makes
            its samples in a way of its own (`ZipDataset`, a subclass with another `_transform`) is served as it is,
            with a warning: its random transforms are not told apart.
        batch_size: Samples in a batch; None is what was measured best, or 32.
        shuffle: Whether to shuffle.
        collate_fn: Makes a batch of a list of samples; None is MONAI's `list_data_collate`.
        loader_class: Another class, as MONAI's `ThreadDataLoader`; None is its `DataLoader`.
        **arguments: As `autotune.best_loader` takes them: fields to pin (`num_workers`, `cache`, ...), `study`,
            `sampler`, and what the class takes. With a sampler of the caller's, epochs are the caller's to set.

    Raises:
        MissingExtraError: MONAI is not installed.
        SpecError: Arguments contradict each other.
    """
    data = _monai("monai.data")
    staged = _staged(dataset)
    own_order = arguments.get("order") == "streaming" or arguments.get("batch_sampler") is not None
    if not own_order and arguments.get("sampler") is None:
        share = share_of(
            arguments.get("rank"), arguments.get("world_size"), environ=arguments.get("environ", os.environ)
        )
        arguments["sampler"] = _order(staged, share, shuffle=shuffle)
        shuffle = False
    return best_loader(
        staged,
        batch_size=batch_size,
        shuffle=shuffle or None,
        collate_fn=collate_fn or data.list_data_collate,
        loader_class=loader_class or data.DataLoader,
        **arguments,
    )


def is_random(transform: Any) -> bool:
    """Tell whether a transform may draw random numbers, as far as its class says."""
    transforms = _monai("monai.transforms")
    if type(transform) is transforms.Compose:
        return any(is_random(part) for part in transform.transforms)
    if getattr(transform, "deterministic", None) is True:
        return False
    randomizable = _monai("monai.transforms.traits").RandomizableTrait
    return isinstance(transform, randomizable) or not isinstance(transform, transforms.Transform)


def plain(sample: Any) -> Any:
    """Give a sample with tensors in place of `MetaTensor`, sharing their memory."""
    if isinstance(sample, torch.Tensor):
        as_tensor = getattr(sample, "as_tensor", None)
        return sample if as_tensor is None else as_tensor()
    if isinstance(sample, Mapping):
        return {key: plain(value) for key, value in sample.items()}
    if type(sample) in (list, tuple):
        return type(sample)(plain(part) for part in sample)
    return sample


def _flat(transform: Any) -> Any:
    compose = _monai("monai.transforms").Compose
    return (transform if type(transform) is compose else compose(transform)).flatten()


def _staged(dataset: Any) -> Dataset[Any]:
    if type(dataset) is Subset:
        return Subset(_staged(dataset.dataset), dataset.indices)
    if type(dataset) is ConcatDataset:
        return ConcatDataset([_staged(part) for part in dataset.datasets])
    if isinstance(dataset, StagedDataset):
        return dataset
    if not isinstance(dataset, _monai("monai.data").Dataset) or not hasattr(dataset, "transform"):
        raise SpecError(
            f"monai_loader takes a StagedMonaiDataset or a dataset of MONAI's with items and transforms, got "
            f"{type(dataset).__qualname__}; autotune.best_loader takes any other"
        )
    if not _transforms_items(dataset):
        warn_caller(
            f"samples of {type(dataset).__qualname__} are not its items, transformed, so that it is served as it is: "
            "no archive or cache keeps them where they are random, and augmentation follows no epoch. "
            "StagedMonaiDataset(data, transform) has both"
        )
        return dataset  # type: ignore[no-any-return]  # MONAI is untyped here
    return StagedMonaiDataset.of(dataset)


def _transforms_items(dataset: Any) -> bool:
    """Tell whether samples of a dataset of MONAI's are `data`, transformed: by its class, or the one it is made of."""
    known = {getattr(_monai("monai.data"), name, None) for name in _PLAIN_CLASSES}
    owners = (next((one for one in type(dataset).__mro__ if name in vars(one)), None) for name in _READING)
    return all(owner is None or owner in known for owner in owners)


def _order(dataset: Dataset[Any], share: Share, *, shuffle: bool) -> DistributedEpochSampler:
    seed = next((leaf.seed for leaf in leaves_of(dataset) if isinstance(leaf, StagedDataset)), 0)
    return DistributedEpochSampler(dataset, seed=seed, shuffle=shuffle, rank=share.rank, world_size=share.world_size)


def _named(item: Any) -> Iterator[Path]:
    """Give the files and folders that an item names."""
    if isinstance(item, str | os.PathLike):
        path = _existing(item)
        if path is not None:
            yield path
    elif isinstance(item, Mapping):
        for value in item.values():
            yield from _named(value)
    elif isinstance(item, list | tuple):
        for value in item:
            yield from _named(value)


def _existing(named: str | os.PathLike[str]) -> Path | None:
    """Give a file or folder; None for text that is none, or a mere word that happens to be a folder's name.

    Nor is the working folder named, which empty text is for `Path`, or the root of all files.
    """
    path = Path(named)
    try:
        if path.is_file():
            return path
        is_word = isinstance(named, str) and not any(mark in named for mark in _SEPARATORS)
        return path if not is_word and path.parent != path and path.is_dir() else None
    except (OSError, ValueError):  # text that is no path: too long, or with a NUL
        return None


def _structure(transforms: Sequence[Any], split: int) -> str:
    names = [type(transform).__name__ for transform in transforms]
    told = ", ".join(names[:split]) + (f"; {', '.join(names[split:])}" if split < len(names) else "")
    return f"monai({told}) {zlib.crc32(_settings(list(transforms), 0).encode()):08x}"


def _settings(value: Any, depth: int) -> str:
    """Write plain settings of transforms, the same in every process."""
    if value is None or isinstance(value, bool | int | float | str):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_settings(part, depth) for part in value)}]"
    name = getattr(value, "__qualname__", type(value).__qualname__)
    if depth >= _DEEPEST or not type(value).__module__.startswith(("monai.", "autotune.")):
        return name
    inside = (f"{key}={_settings(part, depth + 1)}" for key, part in sorted(vars(value).items()) if key != "R")
    return f"{name}({', '.join(inside)})"


def _cause(error: BaseException) -> str:
    """Tell the first error, as MONAI wraps each in one that names the transform."""
    told = [str(error)]
    while error.__cause__ is not None:
        error = error.__cause__
        told.append(f"{type(error).__name__}: {error}")
    return "; ".join(told)


def _monai(module: str) -> Any:
    needed("monai", "autotune.integrations.monai")
    return importlib.import_module(module)


__all__ = ["StagedMonaiDataset", "is_random", "monai_loader", "plain"]
