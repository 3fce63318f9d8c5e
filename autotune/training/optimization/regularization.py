"""Regularisation of a model in one place: dropout, stochastic depth and weight decay."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autotune.errors import SpecError
from autotune.training.optimization.drop_path import DropPath

_LOG = logging.getLogger(__name__)

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class CompositeRegularization:
    """Sets a model's dropout and stochastic depth, and gives its weight decay as a part of the loss.

    Stochastic depth rises along straight lines: from block to block up to `drop_path_rate` at the last one, in the
    order in which the model holds them, and from 0 in the first epoch to all of it in the last. Before `set_epoch` it
    is as in the last epoch. A rate for layers that the model has none of is logged as a warning.

    Args:
        model: The model; its layers `torch.nn.Dropout` and alike, and `DropPath`, are set.
        dropout_rate: Rate of every dropout layer; None leaves each as it was built.
        weight_decay: Factor of half the sum of squared weights in `penalty`; 0 with an optimizer that decays weights
            itself, as that of `create_optimizer` does.
        drop_path_rate: How often the last block is left out; None leaves each as it was built.

    Raises:
        SpecError: A value breaks its rule.
    """

    def __init__(
        self,
        model: nn.Module,
        dropout_rate: float | None = None,
        weight_decay: float = 0.0,
        drop_path_rate: float | None = None,
    ) -> None:
        for name, rate in (("dropout_rate", dropout_rate), ("drop_path_rate", drop_path_rate)):
            if rate is not None and not 0 <= rate < 1:
                raise SpecError(f"{name} is 0 to under 1, got {rate!r}")
        if not 0 <= weight_decay < float("inf"):
            raise SpecError(f"weight_decay is at least 0, got {weight_decay!r}")
        self.model = model
        self.weight_decay = weight_decay
        self.drop_path_rate = drop_path_rate
        self._blocks = [module for module in model.modules() if isinstance(module, DropPath)]
        dropouts = [module for module in model.modules() if isinstance(module, _DROPOUT)]
        _warn_without("dropout_rate", dropout_rate, dropouts)
        _warn_without("drop_path_rate", drop_path_rate, self._blocks)
        if dropout_rate is not None:
            for layer in dropouts:
                layer.p = dropout_rate
        self._set_drop_path(1.0)

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Set stochastic depth as it is in an epoch.

        Args:
            epoch: The epoch, counted from 0.
            epochs: Epochs of the training; a single one has all of it.

        Raises:
            SpecError: Either is no epoch.
        """
        if epoch < 0 or epochs < 1:
            raise SpecError(f"an epoch is at least 0, of at least 1, got epoch={epoch} and epochs={epochs}")
        self._set_drop_path(min(1.0, epoch / (epochs - 1)) if epochs > 1 else 1.0)

    def penalty(self) -> Tensor:
        """Give `weight_decay / 2` times the sum of squared weights, without dimensions.

        Biases and the affine weights of normalisation are left out, as those of one dimension; its gradient is then
        the decay of plain SGD.
        """
        weights = [one for one in self.model.parameters() if one.requires_grad and one.ndim >= 2]
        if not weights or self.weight_decay == 0:
            first = next(self.model.parameters(), None)
            return torch.zeros((), device=None if first is None else first.device)
        return 0.5 * self.weight_decay * torch.stack([weight.float().square().sum() for weight in weights]).sum()

    def _set_drop_path(self, part: float) -> None:
        if self.drop_path_rate is None:
            return
        for place, block in enumerate(self._blocks, start=1):
            block.drop_prob = self.drop_path_rate * part * place / len(self._blocks)


def _warn_without(name: str, rate: float | None, layers: Sequence[nn.Module]) -> None:
    if rate and not layers:
        _LOG.warning("%s=%g has no effect: the model has no layer that it could be set on", name, rate)


__all__ = ["CompositeRegularization", "DropPath"]
