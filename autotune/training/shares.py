"""Whether the ranks of a training have shares of the samples that they can train on together."""

from __future__ import annotations

import logging
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from autotune.data.build import EpochSampler, InOrderSampler
from autotune.errors import SpecError
from autotune.resolve.online_loading import OnlineLoader
from autotune.training.loading import Loader, sizes_of
from autotune.training.ranks import Ranks

_LOG = logging.getLogger(__name__)

_UNDIVIDED = (RandomSampler, SequentialSampler, EpochSampler, InOrderSampler)
"""Samplers that give every sample of their dataset."""


def check_shares(ranks: Ranks, loader: Loader) -> None:
    """Refuse loaders that would leave ranks waiting for each other; warn where each seems to have all samples.

    All ranks call it. Loaders that tell no length are taken on trust.

    Args:
        ranks: The processes that train together.
        loader: The training loader of this one.

    Raises:
        SpecError: Ranks have different numbers of batches; on all of them.
    """
    if ranks.world_size == 1:
        return
    found = ranks.gathered({**sizes_of(loader), "undivided": gives_all_samples(loader)})
    counts = [one["batches"] for one in found]
    if len(set(counts)) > 1:
        raise SpecError(
            f"ranks train in step, so each has as many batches, got {counts}; give the dataset, which is divided "
            "evenly, or a DistributedSampler to each loader"
        )
    samples = {one["samples"] for one in found}
    if ranks.leads and len(samples) == 1 and all(one["undivided"] for one in found):
        _LOG.warning(
            "each of %d ranks has a loader that gives all %s samples of its dataset; unless these are parts of their "
            "own, every sample is trained on %d times an epoch: give the dataset, or a DistributedSampler",
            ranks.world_size, samples.pop(), ranks.world_size,
        )  # fmt: skip


def gives_all_samples(loader: Any) -> bool:
    """Tell whether a loader gives all samples of its dataset, by a sampler that knows no ranks."""
    return (
        isinstance(loader, DataLoader | OnlineLoader)
        and not isinstance(loader.dataset, IterableDataset)
        and type(loader.batch_sampler) is BatchSampler
        and type(loader.sampler) in _UNDIVIDED
    )


__all__ = ["check_shares", "gives_all_samples"]
