"""Samples divided among processes, in another order each epoch, and datasets told which epoch that is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from torch.utils.data import Dataset, DistributedSampler

from autotune.data.passes import Passes


class DistributedEpochSampler(DistributedSampler[Any]):
    """Gives a process its share of the samples, epoch after epoch without anybody setting epochs.

    The first pass is epoch 0, the next epoch 1 and so on, which is the order that `DistributedSampler` gives after
    `set_epoch` with these numbers. An epoch that the caller sets is that of the next pass, from which later ones go on.

    A pass begins when its first index is asked for. Staged datasets are told its epoch then, those in `Subset` and
    `ConcatDataset` and behind an archive or cache too: order and augmentation depend on seed and epoch alone, whatever
    the number of workers. An epoch that was set on a dataset itself stays there until one is set here; a dataset that
    has no more than `set_epoch` of its own is told only epochs from one on that was set here. Without `shuffle`, and
    until an epoch is set here, passes leave the epoch of a dataset to a shuffling sampler of autotune over it.

    Args:
        dataset: A map-style dataset.
        seed: Seed of the order, the same in every process.
        shuffle: Whether to shuffle.
        rank: Number of this process.
        world_size: Number of processes; where samples cannot be divided evenly, the last ones get some twice.
    """

    def __init__(
        self, dataset: Dataset[Any], *, seed: int, shuffle: bool = True, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)
        self._passes = Passes(dataset, leads=shuffle)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, of order and augmentation, of the pass that begins next; later ones go on from it."""
        super().set_epoch(epoch)
        self._passes.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self._begun())  # some loaders ask for an iterator that they do not use

    def _begun(self) -> Iterator[Iterator[Any]]:
        self.epoch = self._passes.begin()
        yield super().__iter__()


__all__ = ["DistributedEpochSampler"]
