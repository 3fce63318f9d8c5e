"""Growth of resolving: whole calls of `best_config`, by the records of the registry."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import torch
from growth_scale import Scale, course, growth
from overheads_figures import Entry
from overheads_resolving import fill, timed
from torch.utils.data import TensorDataset

from autotune.registry import open_existing
from autotune.resolve.best import best_config
from autotune.resolve.deployed import deployed_archives

_UNCOUNTED_CALLS = 5
"""The first calls load modules and compile statements."""


def measure_resolver(scale: Scale, work: Path) -> dict[str, Entry]:
    """Time whole calls, registries of all sizes in turns."""
    dataset = TensorDataset(torch.zeros(1000, 4))
    homes = {size: work / str(size) for size in scale.records}
    for size, home in homes.items():
        fill(home, dataset, size)
        found = best_config(dataset, home=home, environ={})
        if found.match != "exact":
            raise SystemExit(f"the registry of {size} records must answer exactly, got {found}")
    times: dict[int, list[float]] = {size: [] for size in homes}
    order = random.Random(0)
    for number in range(scale.calls + _UNCOUNTED_CALLS):
        for size in order.sample(list(homes), len(homes)):
            taken_s = timed(lambda home=homes[size]: best_config(dataset, home=home, environ={}))
            if number >= _UNCOUNTED_CALLS:
                times[size].append(1000 * taken_s)
    return {"resolve": growth(times, unit="ms a call"), "kept": course(_kept(homes, scale.asks), unit="ms")}


def _kept(homes: Mapping[int, Path], rounds: int) -> dict[int, list[float]]:
    """Time what every study and measurement begins with: a look which archives are deployed by all studies."""
    times: dict[int, list[float]] = {size: [] for size in homes}
    for _ in range(rounds):
        for size, home in homes.items():
            with open_existing(home, None) as registry:
                times[size].append(1000 * timed(lambda registry=registry: deployed_archives(registry)))
    return times
