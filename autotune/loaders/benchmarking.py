"""How fast a given loader is, in this process: loading and processing apart, with an interval."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sized
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from autotune.constants import SEARCH_TIME_CAP_S
from autotune.data.device_stage import device_transform_of
from autotune.errors import DatasetError, SpecError
from autotune.loaders.factory import create_dataloader
from autotune.measure.batches import SampleCounter, resolve_device, synchroniser
from autotune.measure.consumers import arrival
from autotune.measure.contention import ContentionMeter
from autotune.measure.limits import MeasurementStoppedError
from autotune.measure.throughput import Plan, Throughput, measure_throughput
from autotune.measure.window import counted, rate_interval
from autotune.spec import Interval, Window
from autotune.spec.base import Value
from autotune.spec.config import DEFAULT_PREFETCH_FACTOR


class LoaderBenchmark(Value):
    """How fast one loader was, here and now.

    Attributes:
        samples_per_s: Rate over the windows, processing included, with its 95 % interval.
        epoch_samples_per_s: Rate over a full epoch, its start included.
        loading_s: Seconds a batch that were spent waiting for the loader; without workers all of loading, with
            workers what they did not hide.
        processing_s: Seconds a batch that the transfer to the device and `process` took.
        loading_share: Share of the time that was spent waiting.
        first_batch_s: `iter()` to the first batch, start of the workers included.
        batches: Batches in windows that count.
        samples: Samples in them.
        windows: All windows, those set aside included.
        whole_epochs: Whether each window is whole epochs.
        stopped: Why measuring ended: `precise`, or `time_cap`.
        unsteady: Whether the first and the second half differ by more than 5 %.
        batch_size: Batch size of the loader, or of the DataLoader behind it; None where neither tells one.
        num_workers: Its workers; None where it tells none.
        device: Where batches went.
    """

    samples_per_s: Interval
    epoch_samples_per_s: float
    loading_s: float
    processing_s: float
    loading_share: float
    first_batch_s: float
    batches: int
    samples: int
    windows: tuple[Window, ...]
    whole_epochs: bool
    stopped: Literal["precise", "time_cap"]
    unsteady: bool
    batch_size: int | None
    num_workers: int | None
    device: str


def benchmark_dataloader(
    dataloader_or_dataset: Iterable[Any] | Dataset[Any],
    *,
    process: Callable[[Any], object] | None = None,
    device: str | torch.device = "cpu",
    time_cap_s: float = SEARCH_TIME_CAP_S,
    **loader_arguments: Any,
) -> LoaderBenchmark:
    """Measure a loader in this process, as it is, by the windows that trials are measured by.

    It takes as many batches as the rate needs to be known to 3 %, at most for `time_cap_s` in windows, and half as
    long again where the rate drifts. What trials have beyond it is a process of their own, limits of memory, and
    a known state of the page cache; `optimize_dataloader` compares by them. A `device_transform` of a DataLoader's
    dataset runs on each batch after its transfer, as in trials.

    Args:
        dataloader_or_dataset: A loader, any iterable of batches that can be passed over again, or a dataset.
        process: Takes each batch on the device, as a training step would; None only loads.
        device: Where batches are moved to; `auto` is the first accelerator.
        time_cap_s: Longest time in windows.
        **loader_arguments: Arguments of `create_dataloader`, where a dataset is given.

    Raises:
        SpecError: Arguments for a loader are given beside one.
        DatasetError: An epoch has no batch, or nothing but empty ones.
    """
    if time_cap_s <= 0:
        raise SpecError(f"time_cap_s must be above 0, got {time_cap_s}")
    loader = _loader_of(dataloader_or_dataset, loader_arguments)
    target = torch.device(device) if isinstance(device, torch.device) else resolve_device(device)
    consume = _consumer(process, target, loader)
    behind = _behind(loader)
    workers = getattr(behind, "num_workers", None)
    prefetched = (workers or 0) * (getattr(behind, "prefetch_factor", None) or DEFAULT_PREFETCH_FACTOR)
    plan = Plan(
        time_cap_s=time_cap_s,
        warm_batches=max(1, prefetched),
        epoch_samples=_epoch_samples(behind),
        persistent_workers=bool(getattr(behind, "persistent_workers", False)),
    )
    try:
        found = measure_throughput(
            loader, consume=consume, count=_count_of(behind), plan=plan, around=_Surroundings(target)
        )
    except MeasurementStoppedError as error:
        raise DatasetError(error.failure.message) from error
    return _benchmark(found, behind, target)


def _loader_of(given: Any, arguments: dict[str, Any]) -> Iterable[Any]:
    if isinstance(given, Dataset):
        return create_dataloader(given, **arguments)
    if arguments:
        raise SpecError(
            f"a loader has its own settings, got {', '.join(sorted(arguments))} beside one; give the dataset instead"
        )
    if not hasattr(given, "__iter__") or hasattr(given, "__next__"):
        raise SpecError(
            f"a loader can be passed over again and again, got {type(given).__name__}; "
            "give a DataLoader, a dataset or a list of batches"
        )
    loader: Iterable[Any] = given
    return loader


def _consumer(
    process: Callable[[Any], object] | None, device: torch.device, loader: Iterable[Any]
) -> Callable[[Any], object]:
    # other loaders than torch's do it by themselves
    transform = device_transform_of(loader.dataset) if isinstance(loader, DataLoader) else None
    if device.type == "cpu" and transform is None:
        return process or (lambda _: None)
    arrive = arrival(device, transform)
    return arrive if process is None else lambda batch: process(arrive(batch))


def _behind(loader: Any) -> Any:
    """Give the DataLoader that a loader of ours wraps, which knows its workers; else the loader itself."""
    inner = getattr(loader, "dataloader", None)
    return inner if isinstance(inner, DataLoader) else loader


def _count_of(loader: Any) -> Callable[[Any, int], int]:
    counter = SampleCounter(_batch_size(loader))
    return lambda batch, _delivered: counter.or_full(batch)


def _batch_size(loader: Any) -> int | None:
    size = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    return size if isinstance(size, int) and size > 0 else None


def _epoch_samples(loader: Any) -> int | None:
    """Give the samples of an epoch where loader and sampler tell them; None waits for an epoch's end."""
    sampler, size = getattr(loader, "sampler", None), _batch_size(loader)
    if not isinstance(loader, DataLoader) or size is None or isinstance(loader.dataset, IterableDataset):
        return None
    if getattr(loader.dataset, "on_broken", None) == "skip":
        return None
    if not isinstance(sampler, Sized) or getattr(loader, "batch_size", None) is None:
        return None
    count = len(sampler)
    return (count // size * size if loader.drop_last else count) or None


def _benchmark(found: Throughput, loader: Any, device: torch.device) -> LoaderBenchmark:
    windows = counted(found.windows)
    seconds = sum(window.seconds for window in windows)
    waited_s = sum(window.wait_s for window in windows)
    batches = sum(window.batches for window in windows)
    workers = getattr(loader, "num_workers", None)
    rate = rate_interval(windows)
    return LoaderBenchmark(
        samples_per_s=rate.replace(low=max(0.0, rate.low)),  # few windows of a noisy machine may reach below
        epoch_samples_per_s=found.samples_per_s,
        loading_s=waited_s / batches,
        processing_s=(seconds - waited_s) / batches,
        loading_share=waited_s / seconds,
        first_batch_s=found.first_batch_s,
        batches=batches,
        samples=sum(window.samples for window in windows),
        windows=tuple(found.windows),
        whole_epochs=found.whole_epochs,
        stopped="precise" if found.stopped == "precise" else "time_cap",  # there is no rate to be futile against
        unsteady=found.unsteady,
        batch_size=_batch_size(loader),
        num_workers=workers if isinstance(workers, int) else None,
        device=str(device),
    )


class _Surroundings:
    """What goes on around the loop in the caller's process, whose memory and device are left alone.

    Args:
        device: Where batches are consumed.
    """

    def __init__(self, device: torch.device) -> None:
        self.synchronise = synchroniser(device)
        self._contention = ContentionMeter(os.getpid())

    def before_pass(self) -> None:
        """Leave the page cache as it is."""

    def begin_window(self) -> None:
        """Start to measure what others take."""
        self._contention.start()

    def after_batch(self) -> None:
        """Leave memory alone: it is the caller's."""

    def end_window(self) -> float | None:
        """Give the CPU time of others as a share of one core."""
        return self._contention.share()

    def own_cpu_s(self) -> float | None:
        """Give the CPU time that this process and its workers took in the last window."""
        return self._contention.own_cpu_s


__all__ = ["LoaderBenchmark", "benchmark_dataloader"]
