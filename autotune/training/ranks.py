"""The processes that train one model together, and what they tell each other."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import nn

from autotune.resolve.distributed import in_process_group, share_of

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Which of the processes this one is. Alone, nothing is sent anywhere.

    All ranks call the methods that gather, each as often as the others.

    Attributes:
        device: Where this process trains.
        rank: Number of this process.
        world_size: How many there are.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes what only one may write."""
        return self.rank == 0

    def summed(self, *values: float) -> tuple[float, ...]:
        """Add up figures over all ranks."""
        if self.world_size == 1:
            return values
        added = torch.tensor(values, dtype=torch.float64, device=self._reachable)
        torch.distributed.all_reduce(added)
        return tuple(added.tolist())

    def highest(self, *values: float) -> tuple[float, ...]:
        """Give the highest of each figure over all ranks."""
        if self.world_size == 1:
            return values
        most = torch.tensor(values, dtype=torch.float64, device=self._reachable)
        torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
        return tuple(most.tolist())

    def any(self, flag: bool) -> bool:
        """Tell whether something is so on some rank."""
        return self.summed(float(flag))[0] > 0

    def gathered(self, value: Any) -> list[Any]:
        """Give what each rank has, in the order of their numbers."""
        if self.world_size == 1:
            return [value]
        found: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            torch.distributed.barrier()

    def share_buffers(self, model: nn.Module) -> None:
        """Give every rank the buffers of the first, such as the running means of normalisation."""
        if self.world_size > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def gathering(self, network: nn.Module, *, now: bool) -> AbstractContextManager[None]:
        """Average gradients over ranks in a backward pass, or leave them to a later one.

        Ranks weigh alike, however many pixels of their batches count.

        Args:
            network: What `wrapped` gave.
            now: Whether this pass averages; where it does not, gradients of each rank add up.
        """
        if now or not isinstance(network, nn.parallel.DistributedDataParallel):
            return nullcontext()
        later: AbstractContextManager[None] = network.no_sync()
        return later

    def average_gradients(self, model: nn.Module) -> None:
        """Average the gradients that a model has by now over ranks, after passes that left them apart."""
        if self.world_size > 1:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad.div_(self.world_size)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """Give the model that averages gradients over ranks; alone, the model itself."""
        if self.world_size == 1:
            return model
        return nn.parallel.DistributedDataParallel(
            model, device_ids=[self.device] if self.device.type == "cuda" else None
        )

    @property
    def _reachable(self) -> torch.device:
        """Device whose tensors the process group sends."""
        return self.device if torch.distributed.get_backend() == "nccl" else torch.device("cpu")


def join_ranks(device: str = "auto", *, environ: Mapping[str, str] = os.environ) -> Ranks:
    """Choose the device, and join the other processes where `torchrun` started this one beside them.

    A process group that exists is taken as it is.

    Args:
        device: Device as torch names it; `auto` is CUDA where there is one.
        environ: Environment; `LOCAL_RANK` in it chooses among several CUDA devices.
    """
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    local = environ.get("LOCAL_RANK", "")
    share = share_of(None, None, environ=environ)
    if share.world_size > 1 and str(chosen) == "cuda" and local.isdecimal():
        chosen = torch.device("cuda", int(local))
    if chosen.type == "cuda" and share.world_size > 1:
        torch.cuda.set_device(chosen)  # what gathers objects asks for it
    if share.world_size > 1 and not in_process_group():
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend)
        _LOG.info("rank %d of %d joined by %s", share.rank, share.world_size, backend)
    return Ranks(device=chosen, rank=share.rank, world_size=share.world_size)


__all__ = ["Ranks", "join_ranks"]
