"""Height thresholds, compared as they come: through float32, and metres apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch

SAME_M = 1e-3
"""Thresholds this close in metres are the same."""


def places_among(metres: torch.Tensor, known: torch.Tensor | Sequence[float]) -> torch.Tensor:
    """Tell which of the known thresholds each one is.

    Args:
        metres: `(...)` in metres.
        known: `(K,)` in metres.

    Returns:
        `(..., K)`, true where they are the same; all false where it is none of them.
    """
    others = torch.as_tensor(known, dtype=torch.float64, device=metres.device)
    return (metres.to(torch.float64).unsqueeze(-1) - others).abs() <= SAME_M


__all__ = ["SAME_M", "places_among"]
