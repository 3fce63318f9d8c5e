"""Loaders with an order of their own; the only caller of `torch.utils.data.DataLoader`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from autotune.data.passes import Passes
from autotune.data.stages import follows_passes
from autotune.data.streaming import StreamedArchive


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
    generator of this seed, at every worker count and with persistent workers too. Each pass over the loader is
    another epoch for a dataset with a random stage, going on from one that is set on the loader's sampler; one that
    is set on the dataset itself stays. With a sampler of the caller's own that holds only where it is autotune's.

    Args:
        dataset: A dataset, as `apply` gives it.
        arguments: The loader's arguments, as `apply` gives them.
        shuffle: Whether to shuffle; an archive that a configuration streams is shuffled in its buffer, other iterable
            datasets and a caller's sampler have their own order.
        seed: Seed of the loader's generator; None draws one from torch's.
        generator: The generator itself; wins over `seed`.
        loader_class: DataLoader or a class that takes its arguments.
        **dataloader_arguments: The caller's own arguments; they win over `arguments`.
    """
    merged = {**arguments, **dataloader_arguments}
    _fold(merged, dataloader_arguments)
    merged["generator"] = _generator(seed, generator)
    ordered = merged.get("sampler") is not None or merged.get("batch_sampler") is not None
    if isinstance(dataset, StreamedArchive) and not dataset.own_order:
        streamed = dataset.for_loader()  # another loader over it may have another order
        drawn = int(torch.empty((), dtype=torch.int64).random_(generator=merged["generator"]).item())
        streamed.order_by(drawn, shuffle, batch_size=merged.get("batch_size"))
        dataset = streamed
    if not ordered and not isinstance(dataset, IterableDataset):
        persistent = bool(merged.get("persistent_workers"))
        if shuffle:
            merged["sampler"] = EpochSampler(dataset, merged["generator"], persistent=persistent)
        elif follows_passes(dataset):
            merged["sampler"] = InOrderSampler(dataset)
    return loader_class(dataset, **merged)


class EpochSampler(RandomSampler):
    """Shuffles as `RandomSampler` does, in an order that does not depend on the workers; each pass is an epoch.

    Persistent workers skip a number that every other loader draws from the generator at the start of an
    epoch; it is drawn here instead, so that the generator is in the same state for every epoch.
    """

    def __init__(self, dataset: Dataset[Any], generator: torch.Generator, *, persistent: bool) -> None:
        super().__init__(dataset, generator=generator)  # type: ignore[arg-type]  # map-style
        self._persistent = persistent
        self._passes = Passes(dataset, leads=True)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that samples are augmented for in the next pass, from which later ones go on.

        The order goes on as it would: it is that of the generator, whatever the epoch.
        """
        self._passes.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._begun())  # `yield from` would cost a step of Python for every sample

    def _begun(self) -> Iterator[Iterator[int]]:
        if self._persistent and self._passes.begun:
            torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        self._passes.begin()
        yield super().__iter__()


class InOrderSampler(SequentialSampler):
    """Gives the indices in order; each pass is an epoch that samples are augmented for.

    Where a shuffling sampler of autotune has begun a pass over the same samples and is still there, as that of
    training is while validation runs, its epoch is left alone until one is set here.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        super().__init__(dataset)  # type: ignore[arg-type]  # map-style
        self._passes = Passes(dataset, leads=False)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that samples are augmented for in the next pass, from which later ones go on."""
        self._passes.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._begun())

    def _begun(self) -> Iterator[Iterator[int]]:
        self._passes.begin()
        yield super().__iter__()


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
