"""No cache: the dataset as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset


class NoCache:
    """Keeps nothing."""

    def wrap(
        self,
        dataset: Dataset[Any],
        *,
        fraction: float | None = 1.0,  # noqa: ARG002
        directory: Path | None = None,  # noqa: ARG002
        limit_bytes: int | None = None,  # noqa: ARG002
        device: torch.device | None = None,  # noqa: ARG002
    ) -> Dataset[Any]:
        """Give the dataset itself."""
        return dataset
