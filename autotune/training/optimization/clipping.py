"""Gradients kept within a norm."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from autotune.training.config import Config

_ABOVE_ZERO = 1e-6
"""What torch adds to the norm that it divides by."""


def clip_gradients(parameters: Iterable[Tensor], config: Config) -> float:
    """Scale all gradients down together where their norm is above `clip_value`, and give the norm before.

    A norm that is not finite is given back with the gradients as they were, so that the caller sees which they are.

    Args:
        parameters: Parameters; those without a gradient are left out.
        config: Its `use_gradient_clipping` and `clip_value` count.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = _norm(gradients)
    if config.use_gradient_clipping and math.isfinite(norm) and norm > config.clip_value:
        for gradient in gradients:
            gradient.mul_(config.clip_value / (norm + _ABOVE_ZERO))
    return norm


def _norm(gradients: list[Tensor]) -> float:
    """Give the Euclidean norm of all gradients together, in at least float32; 0 without any."""
    if not gradients:
        return 0.0
    norms = [torch.linalg.vector_norm(gradient.detach(), dtype=_wide(gradient.dtype)) for gradient in gradients]
    home = norms[0].device
    return float(torch.linalg.vector_norm(torch.stack([norm.to(home) for norm in norms])))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


__all__ = ["clip_gradients"]
