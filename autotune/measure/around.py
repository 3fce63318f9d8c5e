"""What goes on around the measuring loop: memory, contention, page cache, the loader's processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from time import perf_counter

import torch

from autotune.cgroups import Cgroups
from autotune.measure.batches import synchroniser
from autotune.measure.contention import ContentionMeter
from autotune.measure.host import HostMeter
from autotune.measure.memory import make_meter
from autotune.measure.pagecache import evict
from autotune.spec import MemoryUse


class Around:
    """The surroundings of a real measurement; see `autotune.measure.throughput.Surroundings`.

    Args:
        device: Where batches are consumed.
        limit_bytes: Limit of device memory, headroom not yet taken off.
        host_limit_bytes: Limit of the process tree's memory.
        cold_paths: Files that are evicted before each pass.
        own_pids: Single processes whose CPU time counts as ours.
        own_quota: Whether the quota of the control group is this measurement's own, so that throttling is no
            disturbance.
        watch_others: Whether CPU time of other processes disturbs; else it is unknown.
        on_edge: Called between windows.
    """

    def __init__(
        self,
        *,
        device: torch.device,
        limit_bytes: int,
        host_limit_bytes: int,
        cold_paths: Sequence[str] = (),
        own_pids: Sequence[int] = (),
        own_quota: bool = False,
        watch_others: bool = True,
        on_edge: Callable[[], None] | None = None,
    ) -> None:
        self.synchronise = synchroniser(device)
        self._cgroups = Cgroups()
        self._meter = make_meter(device, limit_bytes)
        self._limit_bytes = limit_bytes
        self._host = HostMeter(os.getpid(), host_limit_bytes)
        self._host_limit_bytes = host_limit_bytes
        self._contention = ContentionMeter(
            os.getpid(), also=own_pids, cgroups=self._cgroups, count_throttling=not own_quota
        )
        self._watch_others = watch_others
        self._cold_paths = cold_paths
        self._on_edge = on_edge
        self._throttled_s = self._cgroups.throttled_s()
        self._last_batch_s = perf_counter()

    @property
    def cold(self) -> bool:
        """Whether files are evicted before each pass."""
        return bool(self._cold_paths)

    @property
    def peak_bytes(self) -> int:
        """Peak of device memory until now."""
        return max(0, self._meter.peak_bytes)

    def begin(self) -> None:
        """Take the state before the first batch."""
        self._meter.begin()
        self._last_batch_s = perf_counter()

    def before_pass(self) -> None:
        """Evict the files where the question is a cold one."""
        if self._cold_paths:
            evict(self._cold_paths)

    def begin_window(self) -> None:
        """Start to measure what others take."""
        self._contention.start()

    def after_batch(self) -> None:
        """Read memory cheaply."""
        self._meter.after_batch()
        self._last_batch_s = perf_counter()

    def end_window(self) -> float | None:
        """Read memory thoroughly; give the CPU time of others as a share of one core; None where unknown."""
        share = self._contention.share()
        self._meter.at_edge()
        self._host.sample()
        if self._on_edge is not None:
            self._on_edge()
        return share if self._watch_others else None

    def own_cpu_s(self) -> float | None:
        """Give the CPU time that this process tree took in the last window."""
        return self._contention.own_cpu_s

    def silent_s(self) -> float:
        """Give the seconds since the last batch was done."""
        return perf_counter() - self._last_batch_s

    def throttled_s(self) -> float | None:
        """Give the seconds of throttling since this was made."""
        now = self._cgroups.throttled_s()
        return None if now is None or self._throttled_s is None else max(0.0, now - self._throttled_s)

    def memory_use(self, *, shm_predicted_bytes: int | None, shm_free_bytes: int | None) -> MemoryUse:
        """Put together what the meters found."""
        return MemoryUse(
            device_peak_bytes=self.peak_bytes,
            device_limit_bytes=self._limit_bytes,
            instrument=self._meter.instrument,
            host_pss_bytes=self._host.peak_bytes,
            host_limit_bytes=self._host_limit_bytes,
            shm_predicted_bytes=shm_predicted_bytes,
            shm_free_bytes=shm_free_bytes,
        )
