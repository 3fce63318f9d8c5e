"""The clock of `data_systems.py`: `rivals_clock.py`, for loaders of MONAI too.

echo '{"dataset": ..., "config": ..., "monai": "cache", "seconds": 2}' | python data_systems_clock.py
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import monai.data
import monai.transforms
from rivals_clock import build, clock
from torch.utils.data import Dataset


class ReadSample(monai.transforms.Transform):
    """The deterministic transform whose results MONAI keeps: reading one sample of a dataset."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __call__(self, index: int) -> Any:
        """Read a sample."""
        return self._dataset[index]


def monai_loader(dataset: Dataset[Any], request: Mapping[str, Any]) -> Iterable[Any]:
    """Make MONAI's loader around a dataset, shuffled, as its documentation does."""
    config = request["config"]
    rows, read = list(range(len(dataset))), ReadSample(dataset)  # type: ignore[arg-type]  # map-style
    workers = config["num_workers"]
    shared = {"batch_size": config["batch_size"], "shuffle": True, "num_workers": workers}
    if request["monai"] == "thread_cache":
        cached = monai.data.CacheDataset(rows, read, progress=False, num_workers=0)
        return monai.data.ThreadDataLoader(cached, **shared)
    if request["monai"] == "cache":
        cached = monai.data.CacheDataset(rows, read, progress=False, num_workers=0)
        return monai.data.DataLoader(cached, persistent_workers=workers > 0, **shared)
    kept = monai.data.PersistentDataset(rows, read, cache_dir=Path(request["home"]) / "monai")
    return monai.data.DataLoader(kept, persistent_workers=workers > 0, **shared)


def main() -> None:
    """Answer one request."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    request = json.load(sys.stdin)
    make = monai_loader if request.get("monai") else None
    found = build(request) if request.get("build") else clock(request, make)
    with answers:
        json.dump(found, answers)


if __name__ == "__main__":
    main()
