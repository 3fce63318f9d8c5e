"""How the datasets of training and validation become loaders: order, division, cache, and what is resolved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler, Sampler, SequentialSampler

from autotune.data.apply import prepare
from autotune.data.build import make_loader
from autotune.data.caches import CachedDataset
from autotune.data.distributed_epoch_sampler import DistributedEpochSampler
from autotune.data.stages import StagedDataset
from autotune.errors import CapacityError, SpecError
from autotune.resolve.best import best_loader
from autotune.resolve.distributed import Share, in_process_group
from autotune.resolve.node_cache import share_on_node
from autotune.spec import LoaderConfig

Loaders = tuple[DataLoader[Any], DataLoader[Any]]
"""Of training and of validation."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How samples are served.

    Attributes:
        batch_size: Samples in a batch.
        num_workers: Worker processes of each loader; None is resolved.
        cache_rate: Share of the training samples kept in memory; None is resolved.
        seed: Seed of the order.
        distributed: Whether samples are divided among processes.
        rank: Number of this process.
        world_size: Number of processes.

    Raises:
        SpecError: A value breaks its rule.
    """

    batch_size: int
    num_workers: int | None
    cache_rate: float | None
    seed: int
    distributed: bool
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        _check_whole("batch_size", self.batch_size, least=1)
        _check_whole("rank", self.rank, least=0)
        _check_whole("world_size", self.world_size, least=1)
        if self.num_workers is not None:
            _check_whole("num_workers", self.num_workers, least=0)
        if self.cache_rate is not None:
            _check_rate(self.cache_rate)
        if self.distributed and self.rank >= self.world_size:
            raise SpecError(f"rank is under world_size, got rank={self.rank} with world_size={self.world_size}")

    @property
    def share(self) -> Share:
        """Which part of the samples this process has."""
        return Share(self.rank, self.world_size) if self.distributed else Share()

    @property
    def is_fixed(self) -> bool:
        """Whether nothing is left to be resolved."""
        return self.num_workers is not None and self.cache_rate is not None


def serve(train: StagedDataset, val: StagedDataset, serving: Serving) -> Loaders:
    """Give the loaders of training and validation.

    Raises:
        CapacityError: The cached share does not fit.
    """
    rank, world_size = serving.share
    order = DistributedEpochSampler(train, seed=serving.seed, rank=rank, world_size=world_size)
    loader = _served(train, order, serving, serving.cache_rate)
    caches = isinstance(loader.dataset, CachedDataset) if serving.cache_rate is None else serving.cache_rate > 0
    return loader, _served(val, _in_order(val, serving), serving, 1.0 if caches else 0.0)


def settled_seed(seed: int | None, *, distributed: bool) -> int:
    """Give the seed, or one drawn from torch's global generator.

    Raises:
        SpecError: Processes that divide samples would draw one each.
    """
    if seed is not None:
        return seed
    if distributed:
        raise SpecError("distributed=True needs one seed for all processes, got seed=None; give every process the same")
    return int(torch.randint(2**31, ()).item())


def _served(
    dataset: StagedDataset, sampler: Sampler[Any], serving: Serving, cache_rate: float | None
) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(serving.seed)
    cache: dict[str, Any] = {} if cache_rate is None else {"cache": "memory" if cache_rate else "none"}
    if cache_rate:
        cache["cache_fraction"] = float(cache_rate)
    if serving.is_fixed:
        return _fixed(dataset, serving, cache, sampler=sampler, generator=generator)
    rank, world_size = serving.share
    return best_loader(
        dataset,
        batch_size=serving.batch_size,
        sampler=sampler,
        generator=generator,
        rank=rank,
        world_size=world_size,
        num_workers=serving.num_workers,
        archive="ignore",  # each seed splits otherwise, and each part would want an archive of its own
        **cache,
    )


def _fixed(dataset: StagedDataset, serving: Serving, cache: dict[str, Any], **arguments: Any) -> DataLoader[Any]:
    config = LoaderConfig(
        batch_size=serving.batch_size,
        num_workers=serving.num_workers or 0,
        pin_memory=torch.cuda.device_count() > 0,  # which creates no context, as is_available() may
        **cache,
    )
    try:
        prepared = prepare(dataset, config)
    except CapacityError as error:
        raise CapacityError(
            f"cache_rate={serving.cache_rate} keeps {config.cache_fraction:.0%} of the samples: "
            f"{error.message}; lower cache_rate, or cache_rate=None takes what fits",
            error.needed_bytes,
            error.available_bytes,
        ) from error
    if serving.distributed and config.cache == "memory" and in_process_group():
        share_on_node(dataset, prepared.dataset)
    loader: DataLoader[Any] = make_loader(prepared.dataset, prepared.arguments, **arguments)
    return loader


def _in_order(dataset: StagedDataset, serving: Serving) -> Sampler[Any]:
    if not serving.distributed:
        return SequentialSampler(dataset)  # type: ignore[arg-type]  # it has a length
    return DistributedSampler(dataset, num_replicas=serving.world_size, rank=serving.rank, shuffle=False)


def _check_whole(name: str, value: Any, *, least: int) -> None:
    if type(value) is not int or value < least:
        raise SpecError(f"{name} must be a whole number from {least} on, got {value!r}")


def _check_rate(rate: Any) -> None:
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not number or not math.isfinite(rate) or not 0 <= rate <= 1:
        raise SpecError(f"cache_rate must be from 0 (nothing) to 1 (everything), got {rate!r}; None resolves it")


__all__ = ["Loaders", "Serving", "serve", "settled_seed"]
