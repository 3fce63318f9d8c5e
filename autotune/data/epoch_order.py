"""An order of samples that tells datasets which epoch they augment for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Dataset, DistributedSampler

from autotune.data.stages import leaves_of


class EpochOrder(DistributedSampler[Any]):
    """A process's share of all samples in the order of an epoch; staged datasets are told which epoch that is.

    Each iteration takes the next epoch, unless the caller sets epochs. Order and augmentation depend on seed and
    epoch alone, whatever the number of workers.

    Args:
        dataset: The dataset; what an archive or cache stands before is told as well.
        seed: Seed of the order, the same in every process.
        shuffle: Whether to shuffle.
        rank: Number of this process.
        world_size: Number of processes; where samples cannot be divided evenly, the last ones get some twice.
    """

    def __init__(
        self, dataset: Dataset[Any], *, seed: int, shuffle: bool = True, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)
        self._leaves = [leaf for leaf in leaves_of(dataset) if callable(getattr(leaf, "set_epoch", None))]
        self._next_epoch = 0
        self._set_by_caller = False

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the iterations from now on."""
        self._set_by_caller = True
        super().set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        if not self._set_by_caller:
            super().set_epoch(self._next_epoch)
            self._next_epoch += 1
        for leaf in self._leaves:
            leaf.set_epoch(self.epoch)
        return super().__iter__()


__all__ = ["EpochOrder"]
