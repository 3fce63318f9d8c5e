"""`similarity`: how far results of one machine, dataset and workload can be expected to hold for another. Pure.

It is a product of named parts, each a share from 0 to 1: 1 where nothing differs, and the smaller the more what
differs decides about loading. Amounts (CPUs, bytes, times) count by their ratio, so that both ways give the same. It
orders what is worth a try, and says how far to trust it; nothing is ever served on its account.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from autotune.similarity import dataset_parts, machine_parts, workload_parts
from autotune.similarity._base import Circumstances, Part

_SHOWN_BELOW = 0.995
"""Share from which a difference is too small for words."""
_PARTS: tuple[Callable[[Circumstances, Circumstances], Part], ...] = (
    dataset_parts.compare_samples,
    dataset_parts.compare_sample_bytes,
    dataset_parts.compare_lengths,
    dataset_parts.compare_readers,
    machine_parts.compare_cpus,
    machine_parts.compare_memory,
    machine_parts.compare_accelerators,
    machine_parts.compare_systems,
    machine_parts.compare_versions,
    workload_parts.compare_consumers,
    workload_parts.compare_steps,
    workload_parts.compare_conditions,
)
"""Every part, in the order in which they are told."""


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """How like two circumstances are, part by part."""

    parts: tuple[Part, ...]

    @cached_property
    def value(self) -> float:
        """The product of all parts, 0 to 1."""
        return math.prod(part.share for part in self.parts)

    def __str__(self) -> str:
        told = [part.reason for part in self.parts if part.share < _SHOWN_BELOW or part.name == "samples"]
        return f"similarity {self.value:.2f}: {'; '.join(told)}"


def similarity(here: Circumstances, there: Circumstances) -> Similarity:
    """Hold circumstances side by side; the value is the same in both directions, the words are those of `here`."""
    return Similarity(parts=tuple(compare(here, there) for compare in _PARTS))


__all__ = ["Circumstances", "Part", "Similarity", "similarity"]
