"""What an online loader says of itself: all that the plain one would."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader


class StandIn:
    """Stands for a plain loader wherever one is asked what it loads.

    Args:
        plain: The loader.
    """

    def __init__(self, plain: DataLoader[Any]) -> None:
        self._plain = plain

    def __len__(self) -> int:
        return len(self._plain)

    @property
    def dataset(self) -> Any:
        """The dataset, with archive and cache inside it."""
        return self._plain.dataset

    @property
    def batch_size(self) -> int | None:
        """Samples in a batch; None with a batch sampler of the caller's."""
        return self._plain.batch_size

    @property
    def sampler(self) -> Any:
        """What gives the order."""
        return self._plain.sampler

    @property
    def batch_sampler(self) -> Any:
        """What gives the batches of indices."""
        return self._plain.batch_sampler

    @property
    def drop_last(self) -> bool:
        """Whether the last, smaller batch is dropped."""
        return self._plain.drop_last

    @property
    def generator(self) -> Any:
        """What the order is drawn from."""
        return self._plain.generator

    @property
    def collate_fn(self) -> Any:
        """What makes a batch of a list of samples."""
        return self._plain.collate_fn

    def _batches_told(self) -> int | None:
        """Give the batches of a pass; None where the sampler tells no length."""
        try:
            return len(self._plain)
        except (TypeError, NotImplementedError):
            return None

    def _epoch_taker(self) -> Any:
        """Give the sampler that epochs are set on; None where neither takes any."""
        samplers: list[Any] = [self._plain.sampler, self._plain.batch_sampler]
        return next((one for one in samplers if callable(getattr(one, "set_epoch", None))), None)

    def _generators(self) -> list[torch.Generator]:
        """Give what orders are drawn from: the loader's generator, and the sampler's where it has one of its own."""
        found = [self._plain.generator, getattr(self._plain.sampler, "generator", None)]
        distinct = {id(one): one for one in found if isinstance(one, torch.Generator)}
        return list(distinct.values())


__all__ = ["StandIn"]
