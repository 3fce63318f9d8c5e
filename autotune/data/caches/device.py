"""Samples on the training device: stacked there once, and whole batches gathered there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, get_worker_info

from autotune.data.caches._base import ABSENT, CachedDataset, MaybeSample
from autotune.data.caches.planning import RESERVE_BYTES, available_bytes, check_fraction, look_at, plan_rows
from autotune.data.caches.stacked import StackedRows
from autotune.data.stages import base_sample, has_augment
from autotune.errors import ArchiveError, CapacityError, RandomSamplesError
from autotune.units import format_bytes

_FREE_SHARE = 0.9
"""Share of the free device memory that a cache may take where no limit is given: the model needs room too."""


class DeviceCacheMode:
    """Keeps samples of one fixed layout as tensors on the training device, read without workers."""

    def wrap(
        self,
        dataset: Dataset[Any],
        *,
        fraction: float | None = 1.0,
        directory: Path | None = None,  # noqa: ARG002
        limit_bytes: int | None = None,
        device: torch.device | None = None,
    ) -> DeviceCache:
        """Put an empty cache around a dataset; its memory is taken at once.

        Args:
            dataset: What is read on a miss.
            fraction: Share of the samples to keep; None is the largest that fits.
            directory: Of no effect here.
            limit_bytes: Most device memory to take; None is most of what is free.
            device: Where samples are kept; None is the machine's accelerator.

        Raises:
            ArchiveError: There is no device, samples differ in shape, or they are not tensors and numbers alone.
            CapacityError: The share of the samples does not fit.
            RandomSamplesError: Samples are random, or go through an `augment` stage.
        """
        check_fraction(fraction)
        place = _accelerator() if device is None else device
        if has_augment(dataset):
            raise RandomSamplesError(
                f"{type(dataset).__qualname__} has an augment stage, which works on samples in host memory, so a "
                "cache on the device would freeze it; use cache 'memory', or augment batches on the device"
            )
        look = look_at(dataset)
        if look.layout is None:
            raise ArchiveError(
                "samples of one fixed shape are needed on the device, and those of this dataset differ; crop or pad "
                "them in the dataset, or use cache 'memory'"
            )
        StackedRows.check(look.layout)
        limit = _free_bytes(place) if limit_bytes is None else limit_bytes
        rows = plan_rows(look, fraction, limit, name="device")
        try:
            kept = StackedRows(look.layout, rows, place)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise CapacityError(
                f"a device cache of {rows:,} samples needs {format_bytes(rows * look.sample_bytes)} on {place}, and "
                f"it cannot be had: {error}; lower cache_fraction",
                rows * look.sample_bytes,
            ) from error
        return DeviceCache(dataset, kept)


class DeviceCache(CachedDataset):
    """A dataset with a share of its samples on the training device, where all of them are delivered.

    A batch comes as `default_collate` would give it, on the device; a caller's own `collate_fn` gets a list
    of samples whose parts are tensors there. It serves the process that made it alone: workers have no use
    for the device's memory.
    """

    def __init__(self, source: Dataset[Any], kept: StackedRows) -> None:
        super().__init__(source, rows=kept.count, planned_bytes=kept.size_bytes, name="device")
        self._kept = kept
        self._ready = np.zeros(kept.count, dtype=np.bool_)
        self._pid = os.getpid()

    @property
    def device(self) -> torch.device:
        """Where samples are kept and delivered."""
        return self._kept.device

    @property
    def filled(self) -> int:
        """Samples that are in the cache."""
        return int(self._ready.sum())

    @property
    def used_bytes(self) -> int:
        """Bytes on the device; those of all places, as they are taken at once."""
        return self._kept.size_bytes

    def holds(self, index: int, row: int) -> bool:  # noqa: ARG002
        """Tell whether a sample that has a place is there."""
        return bool(self._ready[row])

    def fetch(self, index: int, row: int) -> MaybeSample:  # noqa: ARG002
        """Give a fresh copy of a sample that has a place, or `ABSENT`."""
        return self._kept.gather(np.array([row]))[0] if self._ready[row] else ABSENT

    def store(self, index: int, row: int, sample: Any) -> None:
        """Copy a sample to its place on the device."""
        try:
            leaves = self._kept.leaves_of([sample])
        except ArchiveError as error:
            self.leave_out(index, error)
            return
        self._kept.put(np.array([row]), leaves)
        self._ready[row] = True

    def base_sample(self, index: int) -> Any:
        """Give one sample on the device."""
        return self.base_samples([index])[0]

    def base_samples(self, indices: Sequence[int]) -> list[Any]:
        """Give a batch on the device: what is there is gathered, the rest is read, moved and kept."""
        self._check_process()
        rows = self._rows[np.asarray(indices, dtype=np.int64)]
        there = (rows >= 0) & self._ready[rows]
        self.count(hits=int(there.sum()), misses=int((~there).sum()))
        if there.all():
            return self._kept.gather(rows)
        places = np.flatnonzero(~there).tolist()
        samples = [base_sample(self.source, indices[place]) for place in places]
        try:
            moved = self._kept.leaves_of(samples)
        except ArchiveError as error:
            self.leave_out(indices[places[0]], error)
            return self._one_by_one(rows, there, samples)
        keeping = rows[places] >= 0
        if keeping.any():
            self._kept.put(rows[places][keeping], [leaf[torch.from_numpy(keeping)] for leaf in moved])
            self._ready[rows[places][keeping]] = True
        return self._kept.gather(rows, there=there, others=moved)

    def _one_by_one(self, rows: npt.NDArray[np.int64], there: npt.NDArray[np.bool_], samples: list[Any]) -> list[Any]:
        """Give a batch with a sample of another layout, which is moved as it is."""
        read = iter(samples)
        return [
            self._kept.gather(rows[place : place + 1])[0] if kept else self._kept.moved(next(read))
            for place, kept in enumerate(there)
        ]

    def _check_process(self) -> None:
        if get_worker_info() is not None or os.getpid() != self._pid:
            raise ArchiveError(
                "samples on the device are read by the process that made the cache, got a worker; use num_workers=0"
            )

    def __getstate__(self) -> dict[str, Any]:
        raise ArchiveError(
            "a cache on the device cannot be copied or sent to another process; use num_workers=0, or cache 'memory'"
        )


def _accelerator() -> torch.device:
    accelerator = getattr(torch, "accelerator", None)  # since torch 2.6
    if accelerator is not None:
        found = accelerator.current_accelerator(check_available=True) if accelerator.is_available() else None
    else:
        found = torch.device("cuda") if torch.cuda.is_available() else None
    if found is None:
        raise ArchiveError("cache 'device' needs an accelerator, and this machine has none; use cache 'memory'")
    return torch.device(found.type, torch.cuda.current_device()) if found.type == "cuda" else torch.device(found)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(
            device
        )  # the allocator's, to be had too
        return int((free + idle) * _FREE_SHARE)
    return max(0, available_bytes() - RESERVE_BYTES)
