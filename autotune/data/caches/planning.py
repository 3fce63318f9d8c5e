"""How much of a dataset a cache may keep: one look at the samples, and the room there is for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from torch.utils.data import Dataset

from autotune.cgroups import Cgroups
from autotune.data.archives._base import sized
from autotune.data.fixed_layout import FixedLayout
from autotune.data.randomness import refuse_random, refuse_unlike_stages
from autotune.data.records import pack_sample
from autotune.data.samples import take_apart
from autotune.data.shared_memory import backing_free_bytes
from autotune.data.stages import apart, base_sample
from autotune.errors import CapacityError, SpecError
from autotune.units import MIB, format_bytes

RESERVE_BYTES = 128 * MIB
"""Memory that is left to everything else."""
CHECK_EVERY_BYTES = 64 * MIB
"""Bytes after which the machine's memory is asked for again while a cache fills."""
_PROBES = 8
"""Samples that are looked at, spread over the dataset."""


@dataclass(frozen=True)
class Look:
    """What a few samples of a dataset tell.

    Attributes:
        count: Samples of the dataset.
        layout: Layout that the samples share; None where they differ.
        sample_bytes: Bytes of one sample in memory: exact with a layout, else the mean of those seen.
        packed_bytes: Bytes of one sample as a block of `autotune.data.records`, the mean of those seen.
    """

    count: int
    layout: FixedLayout | None
    sample_bytes: int
    packed_bytes: int


def look_at(dataset: Dataset[Any]) -> Look:
    """Read a few samples, once each, and refuse what cannot be kept.

    Raises:
        ArchiveError: A sample cannot be given back exactly, or is not what the dataset's stages give.
        RandomSamplesError: Samples are random and not told apart in stages.
    """
    count = sized(dataset)
    refuse_random(dataset, "cached")
    refuse_unlike_stages(dataset)
    seen = apart(dataset)
    layouts, sizes = [], []
    for place in np.unique(np.linspace(0, count - 1, _PROBES).astype(int)).tolist():
        sample = base_sample(seen, place)
        layouts.append(FixedLayout.of_parts(*take_apart(sample)))
        sizes.append(len(pack_sample(sample)))
    packed = round(sum(sizes) / len(sizes))
    if all(layout == layouts[0] for layout in layouts):
        return Look(count, layouts[0], layouts[0].sample_bytes, packed)
    return Look(count, None, packed, packed)


def check_fraction(fraction: float | None) -> None:
    """Refuse a share that is none."""
    if fraction is not None and not 0 < fraction <= 1:
        raise SpecError(f"a cached fraction must be above 0 and at most 1, got {fraction}")


def plan_rows(look: Look, fraction: float | None, limit_bytes: int, *, name: str) -> int:
    """Give the number of samples to keep.

    Args:
        look: What is known of the samples.
        fraction: Share to keep; None is the largest that fits.
        limit_bytes: Most bytes to keep.
        name: Name of the mode, as the message says it.

    Raises:
        CapacityError: The share does not fit, or not even one sample.
    """
    size = max(1, look.sample_bytes)
    rows = look.count if fraction is None else max(1, round(fraction * look.count))
    if rows * look.sample_bytes <= limit_bytes:
        return rows
    if fraction is not None:
        raise CapacityError(
            f"a {name} cache of {rows:,} samples needs {format_bytes(rows * size)}, and {format_bytes(limit_bytes)} "
            "may be used; lower cache_fraction or leave it None",
            rows * size,
            limit_bytes,
        )
    if size > limit_bytes:
        raise CapacityError(
            f"one sample needs {format_bytes(size)}, and {format_bytes(limit_bytes)} may be used for the {name} "
            "cache; use cache 'none'",
            size,
            limit_bytes,
        )
    return limit_bytes // size


def available_bytes() -> int:
    """Give the memory that can be used without swapping, within the limits of this process's control groups."""
    free = [psutil.virtual_memory().available, Cgroups().memory_free(), backing_free_bytes()]
    return min(room for room in free if room is not None)
