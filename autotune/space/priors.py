"""Whole configurations that experience or a rule of thumb suggests: requirement A8, row by row.

Each cites its source. They are measured first, and they are rivals in the benchmarks. A rule that says
nothing of a field leaves PyTorch's default there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autotune.spec import LoaderConfig, MachineFacts
from autotune.units import GIB

REFERENCE_BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Prior:
    """One suggestion.

    Attributes:
        name: Short name.
        source: Where it comes from: a seed with its place, or PyTorch.
        config: What it suggests for a machine with so much free memory.
    """

    name: str
    source: str
    config: Callable[[MachineFacts, int], LoaderConfig]


def _gpus(machine: MachineFacts) -> int:
    return max(1, machine.accelerator_count)


def _cached(machine: MachineFacts) -> tuple[str, float | None]:
    """Seed 3's share of the data to keep in memory: 0, 0.3 to 0.5, 0.8 to 1.0 by size of memory."""
    if machine.memory_bytes < 32 * GIB:
        return "none", None
    return "memory", 0.5 if machine.memory_bytes <= 128 * GIB else 1.0


def _batch(machine: MachineFacts) -> int:
    """Seed 3's batch size, the upper end of 4-8, 8-16, 16-32 for 1, 4, 8 GPUs."""
    gpus = _gpus(machine)
    return 8 if gpus < 4 else 16 if gpus < 8 else 32


def _three_quarters(machine: MachineFacts, free_bytes: int) -> LoaderConfig:
    workers = max(1, int(machine.cpu_count * 0.75))
    if free_bytes < 4 * GIB:
        workers = min(workers, 2)
    return LoaderConfig(batch_size=REFERENCE_BATCH_SIZE, num_workers=workers, pin_memory=True)


def _by_gpus(machine: MachineFacts, cores: int) -> LoaderConfig:
    cache, share = _cached(machine)
    return LoaderConfig.model_validate(
        {
            "batch_size": _batch(machine),
            "num_workers": min(4 * _gpus(machine), cores),
            "cache": cache,
            "cache_fraction": share,
        }
    )


def _fixed(**fields: object) -> Callable[[MachineFacts, int], LoaderConfig]:
    config = LoaderConfig.model_validate(fields)
    return lambda _machine, _free: config


PRIORS: tuple[Prior, ...] = (
    Prior(
        name="pytorch default",
        source="torch.utils.data.DataLoader",
        config=_fixed(batch_size=REFERENCE_BATCH_SIZE),
    ),
    Prior(
        name="decoded and memory-mapped",
        source="studies/records/2026-11-21-archives.md: 36 times plain files with 2 workers on decode-bound rasters",
        config=_fixed(batch_size=32, archive="npy", stored="decoded"),
    ),
    Prior(
        name="all in memory, no workers",
        source="studies/records/2026-11-21-archives.md: 2 workers cut a cached rate 9 times",
        config=_fixed(batch_size=32, cache="memory", cache_fraction=1.0),
    ),
    Prior(name="75 % of cores", source="seed 4, Optimal Worker Configuration", config=_three_quarters),
    Prior(
        name="4 per GPU, at most all cores",
        source="seed 3, Workers Configuration",
        config=lambda machine, _: _by_gpus(machine, machine.cpu_count),
    ),
    Prior(
        name="4 per GPU, at most half the cores",
        source="seed 3, practical rules",
        config=lambda machine, _: _by_gpus(machine, machine.cpu_count // 2),
    ),
    Prior(
        name="local machine (1 GPU, 8 cores, 16 GB)",
        source="seed 3, machine profiles",
        config=_fixed(batch_size=4, num_workers=4),
    ),
    Prior(
        name="medium server (4 GPUs, 32 cores, 128 GB)",
        source="seed 3, machine profiles",
        config=_fixed(batch_size=8, num_workers=8, cache="memory", cache_fraction=0.5),
    ),
    Prior(
        name="HPC cluster (8 GPUs, 128 cores, 512 GB)",
        source="seed 3, machine profiles",
        config=_fixed(batch_size=16, num_workers=16, cache="memory", cache_fraction=1.0),
    ),
    Prior(name="single process", source="seed 4, Configuration Comparison", config=_fixed(batch_size=32)),
    Prior(
        name="multi-process",
        source="seed 4, Configuration Comparison",
        config=_fixed(batch_size=32, num_workers=4, pin_memory=True, persistent_workers=True),
    ),
    Prior(
        name="optimized",
        source="seed 4, Configuration Comparison",
        config=_fixed(batch_size=64, num_workers=8, pin_memory=True, persistent_workers=True),
    ),
    Prior(
        name="memory efficient",
        source="seed 4, Configuration Comparison",
        config=_fixed(batch_size=16, num_workers=2, pin_memory=True, persistent_workers=True),
    ),
)
"""The table, in the order in which it is tried: the storage rows early, as that is where the large factors are."""
