"""The optimizer that a configuration asks for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from autotune.errors import SpecError
from autotune.training.config import Config


def create_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """Make the optimizer of a model's parameters that take gradients.

    Biases and the affine weights of normalisation, all that has one dimension, do not decay: pulling them towards 0
    limits what a layer can tell and hardly regularises.

    Args:
        model: The model, on its device.
        config: Its `optimizer`, `learning_rate`, `weight_decay` and `momentum` count.

    Raises:
        SpecError: No parameter takes gradients.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise SpecError(f"a model to train has parameters that take gradients, got {type(model).__qualname__} without")
    groups: list[dict[str, Any]] = [
        {"params": [one for one in trained if one.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [one for one in trained if one.ndim < 2], "weight_decay": 0.0},
    ]
    return _made([group for group in groups if group["params"]], config)


def _made(groups: list[dict[str, Any]], config: Config) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.learning_rate)
    if config.optimizer == "adam":
        return Adam(groups, lr=config.learning_rate)
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    return RMSprop(groups, lr=config.learning_rate, momentum=config.momentum)


__all__ = ["create_optimizer"]
