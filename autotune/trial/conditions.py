"""What a trial settles before it measures: samples of an epoch, subset, shared memory, cache limit, files."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, Literal

import numpy as np
import psutil
import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset

from autotune.cgroups import Cgroups
from autotune.constants import DEVICE_HEADROOM_SHARE, HOST_HEADROOM_SHARE
from autotune.data.apply import Prepared
from autotune.data.facts import sample_nbytes
from autotune.errors import SpecError
from autotune.measure.batches import SampleCounter
from autotune.measure.host import shared_memory_free, shared_memory_needed
from autotune.measure.limits import check_shared_memory
from autotune.measure.memory import limit_in_bytes
from autotune.measure.pagecache import total_bytes
from autotune.spec import LoaderConfig, MachineFacts, TrialRequest
from autotune.spec.config import DEFAULT_PREFETCH_FACTOR
from autotune.units import MIB

_CACHE_RESERVE_BYTES = 512 * MIB
"""Kept free beside a memory cache: workers and batches need room too."""


def length_of(dataset: Dataset[Any]) -> int | None:
    """Give the length of a dataset; None where it has none."""
    try:
        return len(dataset) if isinstance(dataset, Sized) else None
    except (TypeError, NotImplementedError):
        return None


def full_epoch(dataset: Dataset[Any], batch_size: int, *, drop_last: bool) -> int | None:
    """Give the samples that an epoch delivers; None where the dataset has no length."""
    length = length_of(dataset)
    return length // batch_size * batch_size if length is not None and drop_last else length


def take_subset(dataset: Dataset[Any], size: int | None, *, seed: int) -> Dataset[Any]:
    """Choose samples at random, in the dataset's order; the dataset itself where it has no more.

    Raises:
        SpecError: An iterable dataset has no samples that could be chosen.
    """
    if size is None:
        return dataset
    if isinstance(dataset, IterableDataset):
        raise SpecError(f"a subset needs a map-style dataset, got {type(dataset).__qualname__}; leave subset empty")
    length = length_of(dataset)
    if length is None or size >= length:
        return dataset
    places = np.sort(np.random.default_rng(seed).choice(length, size=size, replace=False))
    return Subset(dataset, places.tolist())


def sample_counter(dataset: Dataset[Any], batch_size: int, *, drop_last: bool) -> Callable[[Any, int], int]:
    """Give the function that counts the samples of a batch.

    A map-style dataset's batches are full but for the last one, so its counts follow from its
    length, whatever a `collate_fn` makes of a batch.
    """
    epoch = None if isinstance(dataset, IterableDataset) else full_epoch(dataset, batch_size, drop_last=drop_last)
    if epoch is None:
        counter = SampleCounter(batch_size)
        return lambda batch, _delivered: counter.or_full(batch)
    return lambda _batch, delivered: min(batch_size, max(1, epoch - delivered))


def predict_shared_memory(
    dataset: Dataset[Any], config: LoaderConfig, batch_bytes: int | None
) -> tuple[int | None, int | None]:
    """Predict the shared memory of prefetched batches and give it with what is free.

    Where the request does not know a batch's bytes, the first sample tells.

    Raises:
        MeasurementStoppedError: It does not fit, or free shared memory cannot be read.
    """
    free = shared_memory_free()
    if not config.num_workers:
        return None, free
    if batch_bytes is None:
        if isinstance(dataset, IterableDataset):
            return None, free
        batch_bytes = sample_nbytes(dataset[0]) * config.batch_size
    needed = shared_memory_needed(
        num_workers=config.num_workers,
        prefetch_factor=config.prefetch_factor or DEFAULT_PREFETCH_FACTOR,
        batch_bytes=batch_bytes,
    )
    check_shared_memory(needed, free)
    return needed, free


def cache_limit_bytes(
    request: TrialRequest, machine: MachineFacts, device: torch.device, cgroups: Cgroups | None = None
) -> int | None:
    """Give what the cache of a trial may take, by where it keeps samples; None is no limit."""
    cache = request.config.cache
    if cache == "device":
        return int(limit_in_bytes(request.workload.memory_limit, machine, device) * DEVICE_HEADROOM_SHARE)
    if cache == "disk":
        return request.cache_limit_bytes
    return host_cache_bytes(cgroups)


def host_cache_bytes(cgroups: Cgroups | None = None) -> int:
    """Give what a memory cache may take: a share of free host memory, shared memory included, less a reserve."""
    free = psutil.virtual_memory().available
    grouped = (Cgroups() if cgroups is None else cgroups).memory_free()
    least = free if grouped is None else min(free, grouped)
    return max(0, int(least * HOST_HEADROOM_SHARE) - _CACHE_RESERVE_BYTES)


def source_files(prepared: Prepared) -> list[str]:
    """List the files that samples are read from: the archive's, else those that the dataset names; a cache's too."""
    archive = prepared.archive.directory if prepared.archive is not None else None
    folders = [archive, getattr(prepared.cache, "directory", None)]
    stored = {str(path) for folder in folders if folder is not None for path in folder.rglob("*") if path.is_file()}
    return sorted(stored if archive is not None else {*stored, *_named_files(prepared.dataset)})


def wanted_page_cache(
    paths: list[str], asked: Literal["warm", "cold"], machine: MachineFacts
) -> Literal["warm", "cold"]:
    """Choose the state to measure in: files that memory cannot hold are measured cold."""
    if asked == "warm" and total_bytes(paths) > machine.memory_bytes * HOST_HEADROOM_SHARE:
        return "cold"
    return asked


def _named_files(dataset: Any) -> list[str]:
    if type(dataset) is Subset:
        return _named_files(dataset.dataset)
    if type(dataset) is ConcatDataset:
        return [path for part in dataset.datasets for path in _named_files(part)]
    paths = getattr(dataset, "source_paths", None)
    return [str(path) for path in paths()] if callable(paths) else []
