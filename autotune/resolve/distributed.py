"""Distributed training: rank 0 resolves, every rank gets the same answer, samples are divided."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed

from autotune.data.streaming import StreamedArchive
from autotune.errors import SpecError
from autotune.resolve.resolution import Resolution

LOCAL_RANKS_VARIABLE = "LOCAL_WORLD_SIZE"
"""What `torchrun` sets to the number of processes on this machine."""
_TORCHRUN_VARIABLES = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE")
"""What `torchrun` sets in each process that it starts; other launchers give some of them another meaning."""
_COUNTS_OF_RANKS = ("WORLD_SIZE", LOCAL_RANKS_VARIABLE)
"""What launchers set to a number of processes that train together."""

_REFUSED = "refused:"


class Share(NamedTuple):
    """Which part of the samples a process trains on.

    Attributes:
        rank: Its number among those that divide the samples.
        world_size: How many divide them; 1 is all samples for this process.
    """

    rank: int = 0
    world_size: int = 1


def share_of(rank: int | None, world_size: int | None, *, environ: Mapping[str, str]) -> Share:
    """Give the share of this process: as told, else of the process group, else of `torchrun`, else all samples.

    Args:
        rank: Number of this process; given with `world_size`.
        world_size: Number of processes; 1 divides nothing, in a process group too.
        environ: Environment.

    Raises:
        SpecError: One is given without the other, or they contradict each other.
    """
    if (rank is None) != (world_size is None):
        raise SpecError(f"rank and world_size are given together, got rank={rank} and world_size={world_size}")
    if rank is not None and world_size is not None:
        for name, value in (("rank", rank), ("world_size", world_size)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise SpecError(f"{name} must be a whole number, got {value!r}")
        if not 0 <= rank < world_size:
            raise SpecError(f"rank must be from 0 to world_size - 1, got rank={rank} and world_size={world_size}")
        return Share(rank, world_size)
    if in_process_group():
        return Share(torch.distributed.get_rank(), _world_size())
    told = [environ.get(name, "") for name in _TORCHRUN_VARIABLES]
    if told[0] and told[1].isdecimal() and told[2].isdecimal() and int(told[1]) < int(told[2]):
        return Share(int(told[1]), int(told[2]))
    return Share()


def in_process_group() -> bool:
    """Say whether this process trains together with others."""
    return torch.distributed.is_available() and torch.distributed.is_initialized() and _world_size() > 1


def is_one_of_many(share: Share, environ: Mapping[str, str]) -> bool:
    """Say whether other processes take part in the training, as far as anybody tells."""
    told = [int(environ[name]) for name in _COUNTS_OF_RANKS if environ.get(name, "").isdecimal()]
    return in_process_group() or max(share.world_size, *told, 1) > 1


def ranks_on_node(environ: Mapping[str, str]) -> int:
    """Give the number of training processes that share this machine; 1 where nobody says."""
    text = environ.get(LOCAL_RANKS_VARIABLE, "")
    return max(1, int(text)) if text.isdecimal() else 1


def ranks_beside(environ: Mapping[str, str]) -> int:
    """Give the ranks that share this one's machine and CPUs, itself included; where nobody says, all ranks are asked.

    All ranks must call it. Ranks that were bound to CPUs of their own share none.
    """
    if environ.get(LOCAL_RANKS_VARIABLE, "").isdecimal():
        return ranks_on_node(environ)
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    places: list[Any] = [None] * _world_size()
    torch.distributed.all_gather_object(places, (platform.node(), cpus))
    here, mine = places[torch.distributed.get_rank()]
    return sum(node == here and (not mine or bool(set(mine) & set(theirs))) for node, theirs in places)


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


def divided_stream(dataset: Any, share: Share, *, seed: int) -> dict[str, torch.Generator]:
    """Let an archive in streaming order give the part of this process; give the loader's arguments that it needs."""
    if isinstance(dataset, StreamedArchive):
        dataset.divide(share.rank, share.world_size)
    # each rank reads its own part of one order
    return {"generator": torch.Generator().manual_seed(seed)} if share.world_size > 1 else {}


def draw_sampler_seed(generator: torch.Generator | None) -> int:
    """Give the seed of the shared order: that of the caller's generator, else one drawn from torch's."""
    if generator is not None:
        return generator.initial_seed() % 2**31
    return int(torch.randint(2**31, ()).item())


def seed_without_group(generator: torch.Generator | None) -> int:
    """Give the seed of an order that ranks share without talking: the caller's generator's, else 0 as torch has it."""
    return 0 if generator is None else draw_sampler_seed(generator)


def divided(resolution: Resolution, share: Share) -> Resolution:
    """Record how many processes divide the samples, and what that makes of the batch size."""
    if share.world_size == 1:
        return resolution
    size = resolution.config.batch_size
    reason = f"batch size {size} on each of {share.world_size} ranks, {size * share.world_size} over all of them"
    return resolution.replace(world_size=share.world_size, why=(*resolution.why, reason))


def _world_size() -> int:
    return torch.distributed.get_world_size()
