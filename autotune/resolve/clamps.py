"""Clamping to the present machine: what it cannot do is taken back, with the reason. Pinned fields stay."""

from __future__ import annotations

import math
from collections.abc import Collection

from autotune.constants import HOST_HEADROOM_SHARE
from autotune.spec import DatasetFacts, LoaderConfig, MachineFacts
from autotune.units import format_bytes

_SMALLEST_FRACTION = 0.01
_NEED_ARCHIVE = frozenset({"archive", "stored", "order"})
"""Fields that mean nothing without an archive: who pins one of them has asked for one."""

Clamped = tuple[LoaderConfig, tuple[str, ...]]


def clamp(
    config: LoaderConfig,
    *,
    dataset: DatasetFacts,
    machine: MachineFacts,
    pinned: Collection[str] = (),
    ranks_on_node: int = 1,
    measured_workers: int = 0,
) -> Clamped:
    """Take back what the machine or the dataset cannot do.

    Args:
        config: The configuration.
        dataset: The dataset.
        machine: The machine.
        pinned: Fields that the caller fixed.
        ranks_on_node: Training processes that share the machine.
        measured_workers: Most workers that were measured on a machine of this class: what was found fastest with
            more workers than CPUs is no guess, and stays for a process that has the machine to itself.

    Returns:
        The configuration and the reasons for every change.
    """
    reasons: list[str] = []
    config = _clamp_device(config, machine, pinned, reasons)
    if "num_workers" not in pinned:
        most = max(1, machine.cpu_count // ranks_on_node, measured_workers if ranks_on_node == 1 else 0)
        config = _clamp_workers(config, most, ranks_on_node, reasons)
    if dataset.iterable:
        config = _clamp_iterable(config, pinned, reasons)
    size = dataset_bytes(dataset)
    memory, sharing = machine.memory_bytes, ranks_on_node
    if config.cache == "device":
        memory = machine.accelerator_memory_bytes or 0
        sharing = math.ceil(ranks_on_node / max(1, machine.accelerator_count))
    if size and memory and config.cache in ("memory", "device") and "cache_fraction" not in pinned:
        room = int(memory * HOST_HEADROOM_SHARE / sharing)
        config = _clamp_cache(config, size, room, reasons, may_drop="cache" not in pinned)
    return config, tuple(reasons)


def dataset_bytes(dataset: DatasetFacts) -> int | None:
    """Give the bytes of all decoded samples where structure and length are declared; None is unknown."""
    size = dataset.sample_bytes
    return size * dataset.length if size and dataset.length else None


def limit_workers(config: LoaderConfig, num_workers: int) -> LoaderConfig:
    """Give the configuration with so many workers, less what needs one where there is none."""
    if num_workers:
        return config.replace(num_workers=num_workers)
    return config.replace(num_workers=0, prefetch_factor=None, persistent_workers=None)


def _clamp_device(
    config: LoaderConfig, machine: MachineFacts, pinned: Collection[str], reasons: list[str]
) -> LoaderConfig:
    if machine.has_accelerator:
        return config
    if config.pin_memory and "pin_memory" not in pinned:
        config = config.replace(pin_memory=False)
        reasons.append("pin_memory is off: this machine has no accelerator")
    if config.cache == "device" and "cache" not in pinned:
        config = config.replace(cache="memory")
        if "num_workers" not in pinned and not {"prefetch_factor", "persistent_workers"} & set(pinned):
            config = limit_workers(config, 0)
        reasons.append("the device cache is one in memory: this machine has no accelerator")
    return config


def _clamp_workers(config: LoaderConfig, most: int, ranks_on_node: int, reasons: list[str]) -> LoaderConfig:
    if ranks_on_node > 1 and config.num_workers:
        reasons.append(f"{config.num_workers} workers are divided by the {ranks_on_node} processes of this machine")
        config = limit_workers(config, max(1, config.num_workers // ranks_on_node))
    if config.num_workers > most:
        reasons.append(f"{config.num_workers} workers are more than the {most} CPUs that each process has")
        config = limit_workers(config, most)
    return config


def _clamp_iterable(config: LoaderConfig, pinned: Collection[str], reasons: list[str]) -> LoaderConfig:
    if config.archive != "files" and not _NEED_ARCHIVE & set(pinned):
        config = config.replace(archive="files", stored=None, order="map")
        reasons.append("an iterable dataset is read from its own source, not from an archive")
    if config.cache != "none" and "cache" not in pinned:
        fraction = config.cache_fraction if "cache_fraction" in pinned else None
        config = config.replace(cache="none", cache_fraction=fraction)
        reasons.append("an iterable dataset has no index to cache by")
    return config


def _clamp_cache(config: LoaderConfig, size: int, room: int, reasons: list[str], *, may_drop: bool) -> LoaderConfig:
    fits = math.floor(100 * room / size) / 100
    if fits >= (config.cache_fraction or 1.0):
        return config
    told = f"{format_bytes(size)} do not fit into {format_bytes(room)} of memory"
    if fits < _SMALLEST_FRACTION and may_drop:
        reasons.append(f"there is no cache: {told}")
        return config.replace(cache="none", cache_fraction=None)
    fits = max(fits, _SMALLEST_FRACTION)
    reasons.append(f"{fits:.0%} of the samples are cached: {told}")
    return config.replace(cache_fraction=fits)
