"""A dataset of small tensors, and steps with an appetite for memory that is known."""

from __future__ import annotations

import random

import torch
from torch.utils.data import Dataset, TensorDataset

_MIB = 2**20


def make_dataset(count: int = 512) -> Dataset[tuple[torch.Tensor, ...]]:
    """Give a dataset whose samples cost next to nothing."""
    return TensorDataset(torch.zeros(count, 16))


class Step:
    """Takes memory for each batch, and gives it back.

    Args:
        fixed_mib: Memory whatever the batch.
        per_sample_mib: Memory for each sample.
        jitter: How much more it may be, as a share, at random.
        evaluation: Memory of an evaluation pass over that of a step.
        seed: Seed of the jitter.
    """

    def __init__(self, *, fixed_mib: float, per_sample_mib: float, jitter: float, evaluation: float, seed: int) -> None:
        self._fixed_mib, self._per_sample_mib = fixed_mib, per_sample_mib
        self._jitter, self._evaluation = jitter, evaluation
        self._random = random.Random(seed)

    def __call__(self, batch: tuple[torch.Tensor, ...]) -> None:
        """Train on a batch."""
        self._take(len(batch[0]), 1.0)

    def evaluate(self, batch: tuple[torch.Tensor, ...]) -> None:
        """Evaluate a batch."""
        self._take(len(batch[0]), self._evaluation)

    def _take(self, samples: int, factor: float) -> None:
        size_mib = (self._fixed_mib + samples * self._per_sample_mib) * factor
        torch.ones(int(size_mib * (1 + self._jitter * self._random.random()) * _MIB), dtype=torch.uint8)


def make_step(**appetite: float) -> Step:
    """Give a step."""
    return Step(**appetite)  # type: ignore[arg-type]
