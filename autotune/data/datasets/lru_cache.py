"""Samples that were used last, kept in the memory of one process."""

from __future__ import annotations

import copy
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from autotune.data.caches._base import ABSENT, MaybeSample
from autotune.data.datasets.memory_room import MemoryRoom, return_freed_memory
from autotune.data.facts import sample_nbytes
from autotune.errors import SpecError
from autotune.units import MIB

_OVERHEAD_BYTES = 512
"""What the Python objects of one sample take beside its arrays."""
_LOOK_EVERY_BYTES = 1 * MIB
"""Bytes that are taken before the available memory is asked for again, which costs some 0.1 ms."""
_LOOK_EVERY_S = 0.2
_OF_NUMPY = (torch.uint8, torch.int64, torch.float32, torch.bool)
"""Types of tensors that samples mostly have, and numpy has too."""


class LruCache:
    """Keeps the samples that were used last, up to a number of them and up to what memory allows.

    Each process has its own: workers that are forked start with what is there, others with nothing. Samples are
    given as they were put; whoever hands them on copies them (`fresh_copy`).

    Args:
        max_samples: Most samples; None is as many as memory allows.
        room: Memory that samples may take; when it gets tight, those go first that were not used for longest.
        look_every_s: Seconds after which the available memory is asked for again.

    Attributes:
        hits: Samples that were there when they were asked for.
        misses: Samples that were not.
        evictions: Samples that had to go.

    Raises:
        SpecError: Neither a number nor room is given, or the number is under 1.
    """

    def __init__(
        self, max_samples: int | None = None, *, room: MemoryRoom | None = None, look_every_s: float = _LOOK_EVERY_S
    ) -> None:
        if max_samples is None and room is None:
            raise SpecError("a cache of the samples used last needs max_samples or room, got neither")
        if max_samples is not None and max_samples < 1:
            raise SpecError(f"max_samples must be at least 1, got {max_samples}; None has no limit")
        self.max_samples = max_samples
        self.room = room
        self._look_every_s = look_every_s
        self._empty()

    def _empty(self) -> None:
        self._kept: OrderedDict[int, tuple[Any, int]] = OrderedDict()
        self.used_bytes = 0
        self.hits = self.misses = self.evictions = 0
        self._looked_s = time.monotonic()
        self._taken_bytes = _LOOK_EVERY_BYTES  # so that the first sample looks

    def get(self, index: int) -> MaybeSample:
        """Give a sample and count it as used, or `ABSENT`."""
        self._look_now_and_then()
        found = self._kept.get(index)
        if found is None:
            self.misses += 1
            return ABSENT
        self.hits += 1
        self._kept.move_to_end(index)
        return found[0]

    def put(self, index: int, sample: Any) -> bool:
        """Keep a sample as the one used last, letting others go for it; tell whether there was room."""
        size = sample_nbytes(sample) + _OVERHEAD_BYTES
        self._drop(index)
        if not self._make_room(size):
            return False
        self._kept[index] = (sample, size)
        self.used_bytes += size
        self._taken_bytes += size
        while self.max_samples is not None and len(self._kept) > self.max_samples:
            self._evict()
        return True

    def clear(self) -> None:
        """Let every sample go."""
        self._kept.clear()
        self.used_bytes = 0
        return_freed_memory()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, index: int) -> bool:
        return index in self._kept

    def _make_room(self, size: int) -> bool:
        if self.room is None:
            return True
        limit = self.room.own_limit_bytes
        if size > limit:
            return False
        while self._kept and self.used_bytes + size > limit:
            self._evict()
        if self._taken_bytes + size < _LOOK_EVERY_BYTES:
            return True
        return self._relieve(self.room, size)

    def _look_now_and_then(self) -> None:
        """Ask for the available memory, so that what others take meanwhile is let go here."""
        if self.room is not None and self._kept and time.monotonic() - self._looked_s >= self._look_every_s:
            self._relieve(self.room, 0)

    def _relieve(self, room: MemoryRoom, wanted_bytes: int) -> bool:
        """Let go what the machine misses; tell whether there is enough now."""
        missing = room.missing_bytes(wanted_bytes)
        self._looked_s = time.monotonic()
        self._taken_bytes = 0
        if missing <= 0:
            return True
        self._taken_bytes = _LOOK_EVERY_BYTES  # while it is tight, every sample looks
        goal = max(0, self.used_bytes - missing)
        while self._kept and self.used_bytes > goal:
            self._evict()
        return_freed_memory()
        return room.missing_bytes(wanted_bytes) <= 0

    def _evict(self) -> None:
        _, (_, size) = self._kept.popitem(last=False)
        self.used_bytes -= size
        self.evictions += 1

    def _drop(self, index: int) -> None:
        found = self._kept.pop(index, None)
        if found is not None:
            self.used_bytes -= found[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"max_samples": self.max_samples, "room": self.room, "_look_every_s": self._look_every_s}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.room = copy.copy(self.room)  # which counts the copies that keep samples
        self._empty()


def fresh_copy(sample: Any) -> Any:
    """Copy the arrays of a sample, so that whoever changes them leaves what is kept as it is."""
    if isinstance(sample, torch.Tensor):
        # By numpy where it can, in one thread: torch's own are many times slower where cores are busy.
        plain = type(sample) is torch.Tensor and sample.device.type == "cpu" and sample.dtype in _OF_NUMPY
        return torch.from_numpy(sample.detach().numpy().copy()) if plain else sample.clone()
    if isinstance(sample, np.ndarray):
        return sample.copy()
    if isinstance(sample, Mapping):
        return {key: fresh_copy(part) for key, part in sample.items()}
    if type(sample) in (tuple, list):
        return type(sample)(fresh_copy(part) for part in sample)
    return sample


__all__ = ["LruCache", "fresh_copy"]
