"""`DataLoaderConfig`: how a dataset of any kind is loaded, and what of it torch is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import BatchSampler, Sampler

from autotune.data.datasets.memory_room import checked_share
from autotune.errors import SpecError

_SWITCHES = (
    "pin_memory", "persistent_workers", "drop_last", "shuffle", "memory_efficient", "non_blocking",
    "enable_monitoring", "log_loading_stats",
)  # fmt: skip


@dataclass
class DataLoaderConfig:
    """Configuration of an `EfficientDataLoader`.

    Checked when it is made, and again, as it can be changed, when a loader is made of it. Settings that mean nothing
    beside others are let go of: prefetching and persistent workers without workers, shuffling beside a sampler, batch
    size and dropping beside a batch sampler, pinning without an accelerator.

    Attributes:
        batch_size: Samples in a batch.
        num_workers: Worker processes; 0 loads in this process, None takes what was measured best on this machine,
            with cache, archive and the other settings of the loader (`autotune.best_loader`).
        pin_memory: Whether batches are made in page-locked memory, from which copies to a device can overlap.
        persistent_workers: Whether workers stay from epoch to epoch.
        prefetch_factor: Batches that each worker keeps ready.
        drop_last: Whether an incomplete last batch is left out.
        shuffle: Whether samples come in another order in every epoch.
        collate_fn: Makes a batch of a list of samples; None stacks them as torch does.
        memory_efficient: Whether batches on their way (workers times prefetch factor, and the one in use) are kept
            within `max_memory_usage`: fewer are fetched ahead, then fewer workers are started.
        max_memory_usage: Share of the memory that is available when the loader is made, above 0 and at most 1.
        pin_memory_device: Device that batches are moved to; the CPU, with one warning, where it is not there.
        non_blocking: Whether copies to the device overlap with work on it.
        generator_seed: Seed of order and workers, as torch takes it; None draws one, or is 0 for the order that several
            processes share.
        custom_sampler: Gives the order of samples.
        custom_batch_sampler: Gives whole batches; wins over `custom_sampler`.
        enable_monitoring: Whether `get_stats` has figures.
        log_loading_stats: Whether each epoch is logged at its end.

    Raises:
        SpecError: A value breaks its rule.
    """

    batch_size: int = 32
    num_workers: int | None = 4
    pin_memory: bool = True
    persistent_workers: bool = True
    prefetch_factor: int = 2

    drop_last: bool = False
    shuffle: bool = True
    collate_fn: Callable[[Any], Any] | None = None

    memory_efficient: bool = False
    max_memory_usage: float = 0.8

    pin_memory_device: str = "cuda"
    non_blocking: bool = True
    generator_seed: int | None = None

    custom_sampler: Sampler[Any] | None = None
    custom_batch_sampler: BatchSampler | Sampler[list[int]] | None = None

    enable_monitoring: bool = True
    log_loading_stats: bool = True

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Refuse values that break a rule.

        Raises:
            SpecError: With rule, value and way out.
        """
        _check_whole("batch_size", self.batch_size, least=1)
        _check_whole("prefetch_factor", self.prefetch_factor, least=1)
        if self.num_workers is not None:
            _check_whole("num_workers", self.num_workers, least=0, way_out="; None takes what was measured best")
        if self.generator_seed is not None:
            way_out = "; None draws one"
            _check_whole("generator_seed", self.generator_seed, least=-(2**63), most=2**64 - 1, way_out=way_out)
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise SpecError(f"{name} is True or False, got {getattr(self, name)!r}")
        if self.collate_fn is not None and not callable(self.collate_fn):
            raise SpecError(f"collate_fn makes a batch of a list of samples, got {self.collate_fn!r}; leave it None")
        for name in ("custom_sampler", "custom_batch_sampler"):
            sampler = getattr(self, name)
            if sampler is not None and not hasattr(sampler, "__iter__"):
                raise SpecError(f"{name} gives indices when it is iterated, got {sampler!r}; leave it None")
        checked_share(self.max_memory_usage, "max_memory_usage")
        try:
            torch.device(self.pin_memory_device)
        except (RuntimeError, TypeError) as error:
            raise SpecError(
                f"pin_memory_device is a device as torch names it ('cuda', 'cuda:1', 'cpu'), "
                f"got {self.pin_memory_device!r}"
            ) from error

    @property
    def is_ordered(self) -> bool:
        """Whether a sampler of the caller's own gives the order."""
        return self.custom_sampler is not None or self.custom_batch_sampler is not None

    @property
    def samples_in_batch(self) -> int:
        """Samples in a full batch, as the batch sampler says where there is one."""
        size = getattr(self.custom_batch_sampler, "batch_size", None)
        return size if isinstance(size, int) and size > 0 else self.batch_size

    def generator(self) -> torch.Generator | None:
        """Give a generator of the seed; None where one is to be drawn."""
        return None if self.generator_seed is None else torch.Generator().manual_seed(self.generator_seed)

    def order_arguments(self, *, iterable: bool) -> dict[str, Any]:
        """Give the arguments of a DataLoader that say what goes into a batch.

        Args:
            iterable: Whether the dataset is one, which has its own order.
        """
        if self.custom_batch_sampler is not None and not iterable:
            return {"batch_sampler": self.custom_batch_sampler}
        arguments: dict[str, Any] = {"batch_size": self.batch_size, "drop_last": self.drop_last}
        if self.custom_sampler is not None and not iterable:
            arguments["sampler"] = self.custom_sampler
        return arguments

    def worker_arguments(self, *, num_workers: int, prefetch_factor: int, accelerator: bool) -> dict[str, Any]:
        """Give the arguments of a DataLoader that say who makes batches, and where.

        Args:
            num_workers: Worker processes as they were settled.
            prefetch_factor: Batches that each keeps ready, as they were settled.
            accelerator: Whether batches go to a device apart from the CPU.
        """
        arguments: dict[str, Any] = {"num_workers": num_workers, "pin_memory": self.pin_memory and accelerator}
        if num_workers:
            arguments["prefetch_factor"] = prefetch_factor
            arguments["persistent_workers"] = self.persistent_workers
        return arguments


def _check_whole(name: str, value: Any, *, least: int, most: int | None = None, way_out: str = "") -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        raise SpecError(f"{name} is a whole number, {limits}, got {value!r}{way_out}")


__all__ = ["DataLoaderConfig"]
