"""Distributed training: rank 0 resolves, every rank gets the same answer, samples are divided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed
from torch.utils.data import DistributedSampler

from autotune.errors import SpecError
from autotune.resolve.resolution import Resolution

LOCAL_RANKS_VARIABLE = "LOCAL_WORLD_SIZE"
"""What `torchrun` sets to the number of processes on this machine."""

_REFUSED = "refused:"


def in_process_group() -> bool:
    """Say whether this process trains together with others."""
    return torch.distributed.is_available() and torch.distributed.is_initialized() and _world_size() > 1


def ranks_on_node(environ: Mapping[str, str]) -> int:
    """Give the number of training processes that share this machine; 1 where nobody says."""
    text = environ.get(LOCAL_RANKS_VARIABLE, "")
    return max(1, int(text)) if text.isdecimal() else 1


def from_rank_zero(resolve: Callable[[], Resolution]) -> Resolution:
    """Resolve on rank 0 and give every rank the answer; all ranks must call it.

    Raises:
        SpecError: Rank 0 refused the arguments; every rank raises it, so that none waits for the others.
    """
    message: list[str | None] = [None]
    if torch.distributed.get_rank() == 0:
        try:
            message[0] = resolve().to_json()
        except Exception as error:
            message[0] = f"{_REFUSED}{error}"
            torch.distributed.broadcast_object_list(message, src=0)
            raise
    torch.distributed.broadcast_object_list(message, src=0)
    text = message[0] or ""
    if text.startswith(_REFUSED):
        raise SpecError(f"rank 0 refused: {text.removeprefix(_REFUSED)}")
    return Resolution.from_json(text)


def divided_sampler(dataset: Any, *, shuffle: bool, seed: int) -> DistributedSampler[Any]:
    """Give the sampler that divides a map-style dataset among all ranks."""
    return DistributedSampler(dataset, shuffle=shuffle, seed=seed)


def draw_sampler_seed(generator: torch.Generator | None) -> int:
    """Give the seed of the shared order: that of the caller's generator, else one drawn from torch's."""
    if generator is not None:
        return generator.initial_seed() % 2**31
    return int(torch.randint(2**31, ()).item())


def _world_size() -> int:
    return torch.distributed.get_world_size()
