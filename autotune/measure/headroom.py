"""Headroom: how fast one thread gathers random whole batches from memory, which no loader here exceeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import default_collate

from autotune.measure.consumers import BatchTaker

_WARM_BATCHES = 2
_STRETCHES = 3
"""Stretches of which the fastest counts: a bound that a busy moment lowered would be none."""

Collate = Callable[[list[Any]], Any]
Memory = Callable[[int, int], npt.NDArray[np.uint8]]
"""Gives uint8 memory for a leaf of a batch by its number and its bytes."""


class MemoryStore:
    """Samples in memory, of which whole batches are gathered.

    Where all samples have one layout and the usual collating, a batch is one selection from each stacked
    tensor; otherwise the samples of the batch are collated.

    Args:
        samples: Samples, at least one; they are repeated.
        rows: Samples that the store holds, so that it is larger than the processor's caches.
        collate: The caller's own collating; None is torch's.
        seed: Seed of the choice of samples.
    """

    def __init__(self, samples: Sequence[Any], *, rows: int, collate: Collate | None = None, seed: int = 0) -> None:
        self._samples = list(samples)
        self._collate = collate or default_collate
        self._generator = torch.Generator().manual_seed(seed)
        self._stacked = _stacked(self._samples, rows) if collate is None else None
        self._rows = rows if self._stacked is not None else len(self._samples)

    def gather(self, batch_size: int, memory: Memory) -> Any:
        """Give a batch of random samples, in memory of its own where samples have to be collated."""
        places = torch.randint(self._rows, (batch_size,), generator=self._generator)
        if self._stacked is not None:
            with _one_thread():
                return _selected(self._stacked, places, _Leaves(memory))
        return self._collate([self._samples[place] for place in places.tolist()])


def bound_samples_per_s(
    store: MemoryStore,
    consume: BatchTaker,
    *,
    batch_size: int,
    seconds: float,
    memory: Memory,
    after_batch: Callable[[], None],
    synchronise: Callable[[], None],
    clock: Callable[[], float] = perf_counter,
) -> float:
    """Measure the rate of gathering and consuming, in samples/s.

    Args:
        store: Where batches come from.
        consume: Takes each batch.
        batch_size: Samples in a batch.
        seconds: How long, at least; at least a batch a stretch.
        memory: Gives what batches are gathered into, as readers have it: where loaders use theirs again, fresh memory
            would make the bound lower than what they reach.
        after_batch: Checks memory.
        synchronise: Waits until the device has done its work.
        clock: Monotonic clock in seconds.
    """
    for _ in range(_WARM_BATCHES):
        consume(store.gather(batch_size, memory))
        after_batch()
    rates = []
    for _ in range(_STRETCHES):
        synchronise()
        started_s, batches = clock(), 0
        while not batches or clock() - started_s < seconds / _STRETCHES:
            consume(store.gather(batch_size, memory))
            after_batch()
            batches += 1
        synchronise()
        rates.append(batches * batch_size / (clock() - started_s))
    return max(rates)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch from dividing a copy among threads: loaders that use workers do not, either."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _stacked(samples: list[Any], rows: int) -> Any | None:
    """Stack samples to tensors of so many rows; None where they differ or hold anything else."""
    try:
        batch = default_collate(samples)
    except (TypeError, RuntimeError, ValueError):
        return None
    if not _all_tensors(batch):
        return None
    places = torch.arange(rows) % len(samples)
    return _selected(batch, places, _Leaves(_fresh))


def _all_tensors(batch: Any) -> bool:
    if isinstance(batch, torch.Tensor):
        return True
    if not isinstance(batch, dict | list | tuple):
        return False
    return all(_all_tensors(part) for part in (batch.values() if isinstance(batch, dict) else batch))


def _fresh(_leaf: int, size_bytes: int) -> npt.NDArray[np.uint8]:
    return np.empty(size_bytes, np.uint8)


class _Leaves:
    """Selects from one tensor of a batch after the other."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._leaf = 0

    def select(self, tensor: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        shape = (len(places), *tensor.shape[1:])
        memory = self._memory(self._leaf, math.prod(shape) * tensor.element_size())
        self._leaf += 1
        if not memory.size:
            return tensor.new_empty(shape)
        out = torch.from_numpy(memory).view(tensor.dtype).view(shape)
        return torch.index_select(tensor.detach(), 0, places, out=out)


def _selected(batch: Any, places: torch.Tensor, leaves: _Leaves) -> Any:
    if isinstance(batch, torch.Tensor):
        return leaves.select(batch, places)
    if isinstance(batch, dict):
        return {key: _selected(part, places, leaves) for key, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_selected(part, places, leaves) for part in batch))
    return type(batch)(_selected(part, places, leaves) for part in batch)
