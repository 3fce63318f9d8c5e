"""Where a loader is in its order: the epoch that it is told, and the generators that shuffle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from autotune.data.build import EpochSampler
from autotune.data.stages import set_epoch
from autotune.data.streaming import StreamedArchive
from autotune.errors import CheckpointError
from autotune.resolve.online_loading import OnlineLoader

OrderState = dict[str, Any]
"""Generators and seeds of a loader, in types that a checkpoint may hold."""

_LOADER = "loader"
_PARTS = ("", "sampler", "batch_sampler", "batch_sampler.sampler")
"""Parts of a loader that may have a generator, a seed or an epoch of their own."""


def enter_epoch(loader: Any, epoch: int) -> None:
    """Tell a loader which epoch its next pass is: by itself or its samplers, else by its dataset.

    The order of a loader that autotune makes is that of its generator, whatever the epoch; what a dataset augments,
    and the order of distributed samplers and streams, go by it.
    """
    told = False
    for _, part in _parts(loader):
        if callable(getattr(part, "set_epoch", None)):
            part.set_epoch(epoch)
            told = True
    dataset = getattr(loader, "dataset", None)
    if dataset is not None and not told:
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
    return state


def set_order_state(loader: Any, state: OrderState) -> None:
    """Put a loader into a state that `order_state` gave.

    Raises:
        CheckpointError: The loader is ordered in another way than the one that the state is of.
    """
    found = order_state(loader)
    if set(found) != set(state):
        there, here = ", ".join(sorted(state)) or "nothing", ", ".join(sorted(found)) or "nothing"
        raise CheckpointError(
            f"a training continues with loaders ordered as before: the checkpoint has {there}, this loader {here}; "
            "make the loader by the same function and with the same shuffle, sampler and generator arguments"
        )
    parts = dict(_parts(loader))
    for name, value in state.items():
        place, _, kind = name.rpartition(".")
        if place == "stream":
            loader.dataset.order_seed = value
        elif place == "online":
            loader.load_state_dict(value)
        elif kind == "generator":
            parts[place].generator.set_state(value)
        else:
            parts[place].seed = value


def begin_as_later_pass(loader: Any) -> None:
    """Start the workers of a loader that keeps them, as an earlier pass would have done.

    Starting them draws a number from the loader's generator, which later passes do not; autotune's own sampler makes
    up for it. Call it before `set_order_state`.
    """
    keeps = getattr(loader, "persistent_workers", False) and getattr(loader, "num_workers", 0)
    if keeps and not isinstance(getattr(loader, "sampler", None), EpochSampler):
        iter(loader)


def _parts(loader: Any) -> Iterator[tuple[str, Any]]:
    """Give the parts that are there, each under its name."""
    for name in _PARTS:
        part = loader
        for step in name.split("."):
            part = getattr(part, step, None) if step else part
        if part is not None:
            yield name or _LOADER, part


__all__ = ["OrderState", "begin_as_later_pass", "enter_epoch", "order_state", "set_order_state"]
