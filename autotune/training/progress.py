"""How far an epoch is, and what it goes back to where a batch fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autotune.training.order import OrderState
from autotune.training.randomness import State as RandomState


@dataclass(kw_only=True)
class Progress:
    """How far an epoch is on this rank.

    Attributes:
        orders: Orders of the loaders at its start.
        random: Random numbers at its start.
        batches: Batches that were trained on.
        counted: What of them counts in the loss, as `Outputs.counted` gives it.
        loss_sum: Their losses, each times what counts of it.
        learning_rate: That of the last of them.
        timing: Figures of `TimedBatches` after the last of them; None before the first batch.
        random_now: Random numbers after the last of them; None before the first.
    """

    orders: dict[str, OrderState]
    random: RandomState | None
    batches: int = 0
    counted: int = 0
    loss_sum: float = 0.0
    learning_rate: float = 0.0
    timing: dict[str, float] | None = None
    random_now: RandomState | None = None


@dataclass(frozen=True, kw_only=True)
class Held:
    """Where a training stands when the batches of its next update begin.

    Attributes:
        progress: How far the epoch is.
        waiting: Gradients that wait, which are some only after a break between two updates.
    """

    progress: Progress
    waiting: dict[str, Any]


__all__ = ["Held", "Progress"]
