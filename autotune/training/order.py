"""Where a loader is in its order: the epoch that it is told, and the generators that shuffle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from autotune.data.build import EpochSampler, InOrderSampler
from autotune.data.distributed_epoch_sampler import DistributedEpochSampler
from autotune.data.stages import set_epoch
from autotune.data.streaming import StreamedArchive
from autotune.errors import CheckpointError
from autotune.resolve.online_loading import OnlineLoader

OrderState = dict[str, Any]
"""Generators and seeds of a loader, in types that a checkpoint may hold."""

_LOADER = "loader"
_WORKERS = "workers.kept"
_TELL_DATASETS = (EpochSampler, InOrderSampler, DistributedEpochSampler)
"""Samplers that tell a dataset the epoch that they are told."""
_PARTS = ("", "sampler", "batch_sampler", "batch_sampler.sampler")
"""Parts of a loader that may have a generator, a seed or an epoch of their own."""


def enter_epoch(loader: Any, epoch: int) -> None:
    """Tell a loader which epoch its next pass is: itself, its samplers, and the dataset where none of those does.

    The order of a loader that autotune makes is that of its generator, whatever the epoch; what a dataset augments,
    and the order of distributed samplers and streams, go by it.
    """
    passed_on = False
    for _, part in _parts(loader):
        if callable(getattr(part, "set_epoch", None)):
            part.set_epoch(epoch)
            passed_on = passed_on or isinstance(part, _TELL_DATASETS)
    dataset = getattr(loader, "dataset", None)
    if dataset is not None and not passed_on:
        set_epoch(dataset, epoch)


def order_state(loader: Any) -> OrderState:
    """Give what the order of the coming passes goes by, as it is between two passes."""
    state: OrderState = {}
    for name, part in _parts(loader):
        generator, seed = getattr(part, "generator", None), getattr(part, "seed", None)
        if isinstance(generator, torch.Generator):
            state[f"{name}.generator"] = generator.get_state()
        if name != _LOADER and isinstance(seed, int):
            state[f"{name}.seed"] = seed
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, StreamedArchive):
        state["stream.seed"] = dataset.order_seed
    if isinstance(loader, OnlineLoader):
        state["online.found"] = loader.state_dict()  # what it came to needs not to be found again
    if _draws_for_workers(loader):
        state[_WORKERS] = loader._iterator is not None  # noqa: SLF001  # torch tells it nowhere else
    return state


def set_order_state(loader: Any, state: OrderState) -> None:
    """Put a loader into a state that `order_state` gave.

    Raises:
        CheckpointError: The loader is ordered in another way than the one that the state is of.
    """
    found = order_state(loader)
    if set(found) - {_WORKERS} != set(state) - {_WORKERS}:
        there, here = ", ".join(sorted(state)) or "nothing", ", ".join(sorted(found)) or "nothing"
        raise CheckpointError(
            f"a training continues with loaders ordered as before: the checkpoint has {there}, this loader {here}; "
            "make the loader by the same function and with the same shuffle, sampler and generator arguments"
        )
    _set_workers(loader, state)
    parts = dict(_parts(loader))
    for name, value in state.items():
        if name == _WORKERS:
            continue
        place, _, kind = name.rpartition(".")
        if place == "stream":
            loader.dataset.order_seed = value
        elif place == "online":
            loader.load_state_dict(value)
        elif kind == "generator":
            parts[place].generator.set_state(value)
        else:
            parts[place].seed = value


def go_behind(loader: Any, batches: int) -> int:
    """Let the next pass begin behind the first batches, where the loader can do so without reading them.

    Call it after `set_order_state` and `enter_epoch`.

    Args:
        loader: The loader.
        batches: Batches to leave out.

    Returns:
        How many of them have yet to be read and left out.
    """
    # an order that is drawn from the global generators must be drawn before those of the checkpoint are set
    own = all(getattr(part, "generator", True) is not None for name, part in _parts(loader) if name != _LOADER)
    if not batches or not isinstance(loader, OnlineLoader) or not own:
        return batches
    loader.load_state_dict({"position": batches})
    return 0


def _draws_for_workers(loader: Any) -> bool:
    """Tell whether a loader keeps its workers, and draws a number in the pass that starts them, but in no later one.

    autotune's own sampler makes up for it.
    """
    keeps = isinstance(loader, DataLoader) and loader.persistent_workers and loader.num_workers > 0
    return keeps and not isinstance(loader.sampler, EpochSampler)


def _set_workers(loader: Any, state: OrderState) -> None:
    """Start the workers that a loader keeps, or let them go, as it was when a state was taken."""
    if _WORKERS not in state or not _draws_for_workers(loader):
        return
    if not state[_WORKERS]:
        loader._iterator = None  # noqa: SLF001  # as above
    elif loader._iterator is None:  # noqa: SLF001
        iter(loader)


def _parts(loader: Any) -> Iterator[tuple[str, Any]]:
    """Give the parts that are there, each under its name."""
    for name in _PARTS:
        part = loader
        for step in name.split("."):
            part = getattr(part, step, None) if step else part
        if part is not None:
            yield name or _LOADER, part


__all__ = ["OrderState", "enter_epoch", "go_behind", "order_state", "set_order_state"]
