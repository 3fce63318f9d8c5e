"""Normalisation that follows the batch size: batch normalisation where batches are large, else group normalisation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from autotune.errors import SpecError
from autotune.training.config import Config

_LOG = logging.getLogger(__name__)

_GROUPS_MAX = 32
"""Most groups of channels (Wu and He 2018, arXiv:1803.08494, table 3: 32 did best)."""
_CHANNELS_MIN = 4
"""Fewest channels of a group: one alone would be instance normalisation, which loses how high a canopy is."""
_BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def adapt_normalization(model: nn.Module, batch_size: int, *, below: int = 8) -> nn.Module:
    """Make group of batch normalisation where batches are too small for steady statistics.

    Group normalisation has nearly the same error at every batch size, batch normalisation a growing one from 8 down (Wu
    and He 2018, figure 1). Weights and biases stay the same parameters, so that an optimizer that has them goes on
    with them; running statistics are let go of.

    Args:
        model: The model, whose layers are exchanged in place.
        batch_size: Samples that a layer sees at once: on one device, without accumulation.
        below: Batch size under which layers are exchanged.

    Returns:
        The model; another module only where it was a single layer of normalisation itself.

    Raises:
        SpecError: A batch has no sample.
    """
    if batch_size < 1:
        raise SpecError(f"a batch has at least one sample, got batch_size={batch_size}")
    return to_group_norm(model) if batch_size < below else model


def apply_normalization(model: nn.Module, config: Config, batch_size: int) -> nn.Module:
    """Give a model the normalisation that a configuration asks for.

    Args:
        model: The model, whose layers are exchanged in place.
        config: Its `normalization` and `group_norm_below` count.
        batch_size: Samples that a layer sees at once.
    """
    if config.normalization == "auto":
        return adapt_normalization(model, batch_size, below=config.group_norm_below)
    if config.normalization == "group":
        return to_group_norm(model)
    return to_batch_norm(model) if config.normalization == "batch" else model


def to_group_norm(model: nn.Module) -> nn.Module:
    """Make group of every batch normalisation, with the same weights."""
    return _exchanged(model, lambda layer: _group_of(layer) if isinstance(layer, _BATCH) else None)


def to_batch_norm(model: nn.Module) -> nn.Module:
    """Make batch of every group normalisation, of images `(N, C, H, W)`, with the same weights."""
    return _exchanged(model, lambda layer: _batch_of(layer) if isinstance(layer, nn.GroupNorm) else None)


def groups_for(channels: int) -> int:
    """Give the number of groups for a number of channels: at most 32, of at least 4 channels each."""
    fitting = [groups for groups in range(1, _GROUPS_MAX + 1) if channels % groups == 0]
    return max(groups for groups in fitting if groups == 1 or channels // groups >= _CHANNELS_MIN)


def _exchanged(model: nn.Module, exchange: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Exchange layers in place, one that is in several places for one."""
    made: dict[nn.Module, nn.Module] = {}
    for module in list(model.modules()):
        new = exchange(module)
        if new is not None:
            made[module] = new.train(module.training)
    if made:
        kinds = sorted({f"{type(old).__name__} to {type(new).__name__}" for old, new in made.items()})
        _LOG.info("%d layers of the model are exchanged: %s", len(made), ", ".join(kinds))
    for module in list(model.modules()):
        for name, child in module._modules.items():  # noqa: SLF001  # named_children leaves out what comes twice
            if child in made:
                module._modules[name] = made[child]  # noqa: SLF001  # attributes of any name, as in Sequential
    return made.get(model, model)


def _group_of(layer: Any) -> nn.Module:
    channels = layer.num_features
    group = nn.GroupNorm(groups_for(channels), channels, eps=layer.eps, affine=False)
    return _with_weights_of(layer, group)


def _batch_of(layer: nn.GroupNorm) -> nn.Module:
    batch = nn.BatchNorm2d(layer.num_channels, eps=layer.eps, affine=False)
    return _with_weights_of(layer, batch)


def _with_weights_of(layer: Any, new: Any) -> nn.Module:
    if layer.affine:
        new.affine = True
        new.weight, new.bias = layer.weight, layer.bias
    home = next(
        (part.device for part in (layer.weight, getattr(layer, "running_mean", None)) if part is not None), None
    )
    moved: nn.Module = new if home is None else new.to(torch.device(home))
    return moved


__all__ = ["adapt_normalization", "apply_normalization", "groups_for", "to_batch_norm", "to_group_norm"]
