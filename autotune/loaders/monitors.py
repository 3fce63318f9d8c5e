"""Monitors of memory and of loading speed, for any iterable; nothing but the clock is read between batches."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from statistics import fmean
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import psutil

from autotune.cgroups import Cgroups
from autotune.errors import SpecError
from autotune.loaders.sampling import SAMPLE_EVERY_S, Monitor, busy_percent, read_memory
from autotune.units import GIB

_UNKNOWN = -1


class MemoryMonitor(Monitor):
    """Watches how much memory of the machine is used, within the limit of this process's control group.

    Where a control group allows less than the machine has, its limit is the whole, and `used`, `available` and
    `percent` refer to it. Memory of an accelerator is watched where this process uses one, that of the thread that
    starts monitoring where it uses several: no context is created.

        with MemoryMonitor() as monitor:
            train()
        print(monitor.peak_percent)

    Args:
        every_s: Seconds between two readings in the background.
        cgroups: Control groups; None is those of this process.

    Attributes:
        memory_usage: Readings, each with `timestamp` (seconds since 1970), `used`, `available` (bytes) and `percent`,
            and `device_used` and `device_total` (bytes) where there is a device.
        monitoring: Whether readings are being taken.
        peak_percent: Highest share of memory that was seen, in percent; 0 before the first reading.
    """

    def __init__(self, *, every_s: float = SAMPLE_EVERY_S, cgroups: Cgroups | None = None) -> None:
        super().__init__(every_s, cgroups)
        self.memory_usage: list[dict[str, float]] = []
        self.monitoring = False
        self.peak_percent = 0.0

    def start_monitoring(self) -> None:
        """Forget earlier readings, take one, and go on in the background until `stop`."""
        self._end_sampling()
        self.memory_usage = []
        self.peak_percent = 0.0
        self.monitoring = True
        self._note_device()
        self.update()
        self._begin_sampling()

    def update(self) -> None:
        """Take a reading now, while monitoring."""
        if not self.monitoring:
            return
        reading = {"timestamp": time.time(), **self._read_memory()}
        self.memory_usage.append(reading)
        self.peak_percent = max(self.peak_percent, reading["percent"])
        self._thin(self.memory_usage)

    def stop(self) -> None:
        """Take a last reading and stop; what was read stays. Stopping twice is allowed."""
        super().stop()
        self.update()
        self.monitoring = False

    def get_memory_stats(self) -> dict[str, float]:
        """Give memory as it is now: `used_gb`, `available_gb`, `percent`; `device_used_gb`, `device_total_gb` if any.

        A GB here is 2**30 bytes.
        """
        reading = read_memory(self._cgroups, self._device_of_thread())
        percent = reading.pop("percent")
        return {**{f"{name}_gb": size / GIB for name, size in reading.items()}, "percent": percent}

    def check_memory_constraint(self, required_memory: int) -> bool:
        """Tell whether so many bytes can be had without swapping and within the control group's limit."""
        return read_memory(self._cgroups)["available"] >= required_memory

    def __enter__(self) -> Self:
        self.start_monitoring()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "monitoring": False}


class DataLoaderPerformanceMonitor(Monitor):
    """Watches how fast batches come, how long was waited for them, and what CPU and memory do meanwhile.

        monitor = DataLoaderPerformanceMonitor()
        for images, targets in monitor.watch(loader):  # or start_iteration(), then update_batch(batch) for each
            step(images, targets)
        print(monitor.get_stats())

    Between batches only the clock and the length of the batch are read; CPU and memory are read in a thread. Of
    several passes at once (`zip(watched, watched)`) the figures are those of the one that began last.

    Args:
        every_s: Seconds between two readings in the background.
        batch_size: Samples in a full batch, which decides where a list could be samples or parts; None asks what is
            watched.
        count: Gives the samples of a batch; None finds them by its arrays and lists, as `SampleCounter` does.
        cgroups: Control groups; None is those of this process.

    Attributes:
        iteration_start_time: Clock reading at the start of the current or last iteration; None before the first.
        batch_times: Clock reading at the arrival of each of its batches, in seconds.
        wait_times: Seconds that each batch was waited for; empty without `watch`.
        memory_usage: Memory of the machine in percent, by reading.
        cpu_usage: CPUs of the machine in use in percent, by reading.
        device_memory_usage: Memory of the accelerator in percent, by reading; empty without one.
    """

    iteration_start_time: float | None
    batch_times: array[float]
    wait_times: array[float]
    memory_usage: list[float]
    cpu_usage: list[float]
    device_memory_usage: list[float]
    _counts: array[int]
    _count: Callable[[Any], int]
    _end_s: float | None
    _first_times: Any
    _reckoned_times: Any
    _last_times: Any

    def __init__(
        self,
        *,
        every_s: float = SAMPLE_EVERY_S,
        batch_size: int | None = None,
        count: Callable[[Any], int] | None = None,
        cgroups: Cgroups | None = None,
    ) -> None:
        super().__init__(every_s, cgroups)
        self._batch_size = batch_size
        self._given_count = count
        self._forget(batch_size)

    def start_iteration(self) -> None:
        """Forget the last iteration and begin a new one."""
        self._begin(self._batch_size)

    def update_batch(self, batch: Any) -> None:
        """Take note of a batch that has arrived.

        Raises:
            SpecError: No iteration was started.
        """
        if self.iteration_start_time is None:
            raise SpecError("a batch belongs to an iteration, got update_batch() before it; call start_iteration()")
        self.batch_times.append(perf_counter())
        self._counts.append(self._count(batch))

    def end_iteration(self) -> None:
        """End the iteration: `total_time` no longer grows, and sampling stops. `watch` does so by itself."""
        if self.iteration_start_time is not None and self._end_s is None:
            self._end_s = perf_counter()
            self.stop()
            self.update()

    def watch(self, batches: Iterable[Any]) -> Watched:
        """Wrap any iterable: each pass over what is returned is an iteration of this monitor.

        Args:
            batches: A DataLoader, a list, a generator: what gives batches. The wrapper has its length and attributes.
        """
        return Watched(batches, self._follow)

    def get_stats(self) -> dict[str, float]:
        """Give figures of the current or last iteration; empty before its first batch.

        Returns:
            `total_time`: seconds from the start to the end of the iteration, or to now while it is running;
            `avg_batch_time`: mean seconds from batch to batch, 0 with one batch;
            `batches`, `samples`: how many came (`samples` and its rates are absent where they cannot be counted);
            `batches_per_second`, `samples_per_second`: over `total_time`, the first batch's start-up included;
            `startup_time`: seconds to the first batch, start of worker processes included;
            `steady_batches_per_second`, `steady_samples_per_second`: from the first batch to the last, start-up
            left out; absent with fewer than two batches;
            `avg_wait_time`, `max_wait_time`, `avg_processing_time`, `wait_share`: seconds of waiting for a batch and
            of work on one after the first, and the share of waiting in both; absent without `watch`;
            `avg_memory_usage`, `peak_memory_usage`, `avg_cpu_usage`: percent of the machine, memory of the control
            group's limit; the CPU's share is absent where an iteration is too short for the system's clock to tell it
            (some hundredths of a second); `avg_device_memory_usage`, `peak_device_memory_usage`: percent of the
            accelerator's memory, absent where this process uses none.
        """
        if not self.batch_times or self.iteration_start_time is None:
            return {}
        ended = self._end_s is not None
        total_s = (self._end_s if self._end_s is not None else perf_counter()) - self.iteration_start_time
        busy = busy_percent(self._first_times, self._last_times if ended else psutil.cpu_times())
        return {
            "total_time": total_s,
            "startup_time": self.batch_times[0] - self.iteration_start_time,
            **self._rates(total_s),
            **self._waiting(),
            "avg_memory_usage": fmean(self.memory_usage),
            "peak_memory_usage": max(self.memory_usage),
            **({} if busy is None else {"avg_cpu_usage": busy}),
            **self._device(),
        }

    def update(self) -> None:
        """Take a reading of CPU and memory now."""
        reading, times = self._read_memory(), psutil.cpu_times()
        if self._first_times is None:
            self._first_times = self._reckoned_times = times
        busy = busy_percent(self._reckoned_times, times)
        if busy is not None:  # else too close: the next reading reckons from the same one
            self.cpu_usage.append(busy)
            self._reckoned_times = times
        self._last_times = times
        self.memory_usage.append(reading["percent"])
        if "device_total" in reading:
            self.device_memory_usage.append(100 * reading["device_used"] / reading["device_total"])
        self._thin(self.memory_usage, self.cpu_usage, self.device_memory_usage)

    def _follow(self, batches: Iterable[Any]) -> Iterator[Any]:
        self._begin(self._batch_size or _batch_size_of(batches))
        # what this pass notes stays its own when another one begins before its end
        times, waits, counts, count = self.batch_times, self.wait_times, self._counts, self._count
        asked_s = perf_counter()
        try:
            for batch in batches:
                arrived_s = perf_counter()
                times.append(arrived_s)
                waits.append(arrived_s - asked_s)
                counts.append(count(batch))
                yield batch
                asked_s = perf_counter()
        finally:
            if times is self.batch_times:
                self.end_iteration()

    def _begin(self, batch_size: int | None) -> None:
        self.stop()
        self._forget(batch_size)
        self._note_device()
        self.update()
        self._begin_sampling()
        self.iteration_start_time = perf_counter()

    def _forget(self, batch_size: int | None) -> None:
        self.iteration_start_time = None
        self.batch_times = array("d")
        self.wait_times = array("d")
        self.memory_usage = []
        self.cpu_usage = []
        self.device_memory_usage = []
        self._counts = array("q")
        self._count = self._given_count or _Counter(batch_size)
        self._end_s = None
        self._first_times = self._reckoned_times = self._last_times = None

    def _rates(self, total_s: float) -> dict[str, float]:
        arrived, batches = self.batch_times, len(self.batch_times)
        steady_s = arrived[-1] - arrived[0]
        found: dict[str, float] = {
            "avg_batch_time": steady_s / (batches - 1) if batches > 1 else 0.0,
            "batches": batches,
            "batches_per_second": batches / total_s if total_s > 0 else 0.0,
        }
        if steady_s > 0:
            found["steady_batches_per_second"] = (batches - 1) / steady_s
        if _UNKNOWN not in self._counts:
            found["samples"] = samples = sum(self._counts)
            found["samples_per_second"] = samples / total_s if total_s > 0 else 0.0
            if steady_s > 0:
                found["steady_samples_per_second"] = (samples - self._counts[0]) / steady_s
        return found

    def _waiting(self) -> dict[str, float]:
        waits = self.wait_times[1:]
        if not waits:
            return {}
        # from one arrival to the next: work on the one batch, then waiting for the other
        waited_s, spanned_s = sum(waits), self.batch_times[-1] - self.batch_times[0]
        return {
            "avg_wait_time": waited_s / len(waits),
            "max_wait_time": max(waits),
            "avg_processing_time": max(0.0, spanned_s - waited_s) / len(waits),
            "wait_share": min(1.0, waited_s / spanned_s) if spanned_s > 0 else 0.0,
        }

    def _device(self) -> dict[str, float]:
        usage = self.device_memory_usage
        return {"avg_device_memory_usage": fmean(usage), "peak_device_memory_usage": max(usage)} if usage else {}


class Watched:
    """An iterable whose batches a monitor sees; anything else that it is asked for is that of the iterable.

    Args:
        batches: What is wrapped.
        follow: Makes one pass over it, which the monitor sees.
    """

    def __init__(self, batches: Iterable[Any], follow: Callable[[Iterable[Any]], Iterator[Any]]) -> None:
        self.batches = batches
        self._follow = follow

    def __iter__(self) -> Iterator[Any]:
        return self._follow(self.batches)

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]  # its own error where it has no length

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "batches" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.batches, name)


def _batch_size_of(batches: Any) -> int | None:
    known = getattr(batches, "batch_size", None)
    return known if isinstance(known, int) and known > 0 else None


class _Counter:
    """Counts the samples of the batches of one pass; `_UNKNOWN` where nothing tells.

    Args:
        batch_size: Samples in a full batch; None is unknown.
    """

    def __init__(self, batch_size: int | None) -> None:
        from autotune.measure.batches import SampleCounter  # takes torch along, which memory alone does not need

        self._samples_of = SampleCounter(batch_size)

    def __call__(self, batch: Any) -> int:
        found = self._samples_of(batch)
        return _UNKNOWN if found is None else found
