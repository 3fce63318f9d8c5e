"""The dataset of `scaling.py`, apart from it: every trial imports this module, and nothing else of the benchmark."""

from __future__ import annotations

import time

import torch
from torch.utils.data import Dataset

SAMPLES = 4096


class SlowSamples(Dataset[torch.Tensor]):
    """Samples that are waited for, as from a disk far away, and cost no CPU time.

    Args:
        sample_ms: How long a sample takes, in ms.
    """

    def __init__(self, sample_ms: float) -> None:
        self._sample_s = sample_ms / 1000

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(self._sample_s)
        return torch.full((8,), float(index))
