"""Buffers of a model as they were: a forward pass in training moves them, whatever comes of its batch."""

from __future__ import annotations

import torch
from torch import nn


class KeptBuffers:
    """Keeps a copy of the buffers of a model, such as the running means of batch normalisation.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._kept: dict[str, torch.Tensor] = {}

    def keep(self) -> None:
        """Take a copy, in place of the one before."""
        for name, buffer in self._model.named_buffers():
            kept = self._kept.get(name)
            if kept is None or kept.shape != buffer.shape or kept.device != buffer.device:
                self._kept[name] = buffer.detach().clone()
            else:
                kept.copy_(buffer.detach())

    @torch.no_grad()
    def put_back(self) -> None:
        """Give the buffers the values of the copy."""
        for name, buffer in self._model.named_buffers():
            if name in self._kept:
                buffer.copy_(self._kept[name])


__all__ = ["KeptBuffers"]
