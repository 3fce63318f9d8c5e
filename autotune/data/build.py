"""How a configuration becomes a loader; the only caller of `torch.utils.data.DataLoader`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from autotune.data.archives._base import Progress
from autotune.data.archives.store import OpenedArchive, open_or_build
from autotune.data.caches import CACHE_MODES
from autotune.data.caches.memory import MemoryCache, fitting_fraction
from autotune.data.fixed_layout import collate_whole
from autotune.data.wrapped import WrappedDataset
from autotune.errors import SpecError
from autotune.spec import LoaderConfig


class Applied(NamedTuple):
    """A configuration as any DataLoader class takes it.

    Attributes:
        dataset: The dataset, with archive and cache inside it.
        arguments: Keyword arguments for the DataLoader class.
    """

    dataset: Dataset[Any]
    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A configuration applied, with what it took.

    Attributes:
        dataset: The dataset, with archive and cache inside it.
        arguments: Keyword arguments for the DataLoader class.
        archive: The archive that was opened or built; None for plain files.
        cache: The memory cache, empty as yet (`fill()` fills it); None without one.
    """

    dataset: Dataset[Any]
    arguments: dict[str, Any]
    archive: OpenedArchive | None = None
    cache: MemoryCache | None = None


def apply(
    dataset: Dataset[Any],
    config: LoaderConfig,
    *,
    archive_root: Path | None = None,
    cache_root: Path | None = None,
    limit_bytes: int | None = None,
    build: bool = True,
    progress: Progress | None = None,
) -> Applied:
    """Turn a dataset and a configuration into what a DataLoader class takes.

    Plain files without a cache give the dataset object itself. For the errors see `prepare`.
    """
    prepared = prepare(
        dataset,
        config,
        archive_root=archive_root,
        cache_root=cache_root,
        limit_bytes=limit_bytes,
        build=build,
        progress=progress,
    )
    return Applied(prepared.dataset, prepared.arguments)


def prepare(
    dataset: Dataset[Any],
    config: LoaderConfig,
    *,
    archive_root: Path | None = None,
    cache_root: Path | None = None,
    limit_bytes: int | None = None,
    build: bool = True,
    progress: Progress | None = None,
) -> Prepared:
    """Open or build the archive, put the cache around it, and give the loader's arguments.

    Args:
        dataset: The user's dataset.
        config: The configuration.
        archive_root: Folder of archives; needed for every archive but plain files.
        cache_root: Folder of caches that keep files.
        limit_bytes: Most bytes of the memory cache; None is what the machine has available.
        build: Whether a missing archive is built; else it is an `ArchiveError`.
        progress: Told how many samples of the archive are stored.

    Raises:
        SpecError: The configuration names a decoder or cache mode that is not offered.
        ArchiveError: The archive cannot be used; the caller decides what instead.
        CapacityError: Archive or cache does not fit.
        RandomSamplesError: Random samples would be stored.
    """
    if config.cache not in CACHE_MODES:
        raise SpecError(f"cache must be one of {', '.join(CACHE_MODES)}, got {config.cache!r}")
    source = _with_decoder(dataset, config.decoder)
    archive = None
    current = source
    if config.archive != "files":
        if archive_root is None:
            raise SpecError(f"archive {config.archive!r} needs a folder of archives, got archive_root=None")
        archive = open_or_build(source, config, archive_root, build=build, progress=progress)
        current = archive.dataset
    if config.cache != "none":
        fraction = config.cache_fraction or fitting_fraction(current, limit_bytes)
        current = CACHE_MODES[config.cache].wrap(
            current, fraction=fraction, directory=cache_root, limit_bytes=limit_bytes
        )
    arguments = config.dataloader_arguments()
    if isinstance(current, WrappedDataset):
        arguments["collate_fn"] = collate_whole
    cache = current if isinstance(current, MemoryCache) else None
    return Prepared(dataset=current, arguments=arguments, archive=archive, cache=cache)


def make_loader(
    dataset: Dataset[Any],
    arguments: dict[str, Any],
    *,
    shuffle: bool = False,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    loader_class: Callable[..., Any] = DataLoader,
    **dataloader_arguments: Any,
) -> Any:
    """Make a loader with a generator of its own.

    The order depends on the seed alone: it is that of `DataLoader(shuffle=True, generator=...)` with a
    generator of this seed, at every worker count and with persistent workers too.

    Args:
        dataset: A dataset, as `apply` gives it.
        arguments: The loader's arguments, as `apply` gives them.
        shuffle: Whether to shuffle; an iterable dataset and a caller's sampler have their own order.
        seed: Seed of the loader's generator; None draws one from torch's.
        generator: The generator itself; wins over `seed`.
        loader_class: DataLoader or a class that takes its arguments.
        **dataloader_arguments: The caller's own arguments; they win over `arguments`.
    """
    merged = {**arguments, **dataloader_arguments}
    _fold(merged, dataloader_arguments)
    merged["generator"] = _generator(seed, generator)
    ordered = merged.get("sampler") is not None or merged.get("batch_sampler") is not None
    if not ordered and not isinstance(dataset, IterableDataset):
        persistent = bool(merged.get("persistent_workers"))
        if shuffle:
            merged["sampler"] = EpochSampler(dataset, merged["generator"], persistent=persistent)
        elif isinstance(dataset, WrappedDataset) and dataset.augments_samples:
            merged["sampler"] = InOrderSampler(dataset)
    return loader_class(dataset, **merged)


class EpochSampler(RandomSampler):
    """Shuffles as `RandomSampler` does, in an order that does not depend on the workers.

    Persistent workers skip a number that every other loader draws from the generator at the start of an
    epoch; it is drawn here instead, so that the generator is in the same state for every epoch.
    """

    def __init__(self, dataset: Dataset[Any], generator: torch.Generator, *, persistent: bool) -> None:
        super().__init__(dataset, generator=generator)  # type: ignore[arg-type]  # map-style
        self._persistent = persistent
        self._epochs = 0

    def __iter__(self) -> Iterator[int]:
        if self._persistent and self._epochs:
            torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        _advance(self.data_source, self._epochs)
        self._epochs += 1
        yield from super().__iter__()


class InOrderSampler(SequentialSampler):
    """Gives the indices in order, and tells stored samples which epoch they are augmented for."""

    def __init__(self, dataset: WrappedDataset) -> None:
        super().__init__(dataset)
        self._epochs = 0

    def __iter__(self) -> Iterator[int]:
        _advance(self.data_source, self._epochs)
        self._epochs += 1
        yield from super().__iter__()


def _advance(dataset: Any, epochs: int) -> None:
    if epochs and isinstance(dataset, WrappedDataset):
        dataset.advance_epoch()


def _generator(seed: int | None, generator: torch.Generator | None) -> torch.Generator:
    if generator is not None:
        return generator
    drawn = int(torch.empty((), dtype=torch.int64).random_().item()) if seed is None else seed
    return torch.Generator().manual_seed(drawn)


def _fold(merged: dict[str, Any], pinned: dict[str, Any]) -> None:
    """Take out what torch refuses beside the caller's own arguments."""
    if merged.get("batch_sampler") is not None:
        for name in ("batch_size", "drop_last"):
            if name not in pinned:
                merged.pop(name, None)
    if not merged.get("num_workers"):
        for name in ("prefetch_factor", "persistent_workers"):
            if name not in pinned:
                merged.pop(name, None)


def _with_decoder(dataset: Dataset[Any], decoder: str | None) -> Dataset[Any]:
    if decoder is None:
        return dataset
    offered = tuple(getattr(dataset, "decoders", ()))
    if decoder not in offered:
        shown = ", ".join(offered) or "none at all"
        raise SpecError(f"decoder must be one that the dataset offers ({shown}), got {decoder!r}")
    chosen: Dataset[Any] = dataset.with_decoder(decoder)  # type: ignore[attr-defined]  # offered together
    return chosen
