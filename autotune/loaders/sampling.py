"""Readings of CPU and memory in the background: a thread that ends with the monitor it reads for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakMethod

import psutil

from autotune.cgroups import Cgroups
from autotune.errors import SpecError

SAMPLE_EVERY_S = 0.5
"""Time between two readings in the background: each takes some 0.2 ms of another thread."""
READINGS_MAX = 20_000
"""Readings that are kept; beyond them every second one is dropped, and further ones are taken half as often."""
_CPU_TIME_MIN_S = 0.05
"""CPU time of the machine, idle included, under which a share means nothing: it is counted in ticks of 10 ms."""


class Monitor:
    """What monitors share: a thread that samples, started and stopped, left behind by copies and pickles.

    Nothing is locked, so a process that is forked while the thread reads finds nothing locked for ever.

    Args:
        every_s: Seconds between two readings.
        cgroups: Control groups whose limits count; None is those of this process.
    """

    def __init__(self, every_s: float, cgroups: Cgroups | None) -> None:
        if not every_s > 0:
            raise SpecError(f"readings need a time above 0 s between them, got every_s={every_s}; leave it out")
        self._every_s = every_s
        self._cgroups = Cgroups() if cgroups is None else cgroups
        self._sampler: _Sampler | None = None
        self._device_index: int | None = None

    def update(self) -> None:
        """Take one reading."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop sampling; what was read stays. Stopping twice is allowed."""
        self._end_sampling()

    def _note_device(self) -> None:
        """Keep the accelerator of the thread that starts this: to the one that samples, device 0 is the current one."""
        self._device_index = self._device_of_thread()

    @staticmethod
    def _device_of_thread() -> int | None:
        torch = _torch_with_cuda()
        return None if torch is None else int(torch.cuda.current_device())

    def _read_memory(self) -> dict[str, float]:
        return read_memory(self._cgroups, self._device_index)

    def _begin_sampling(self) -> None:
        self._end_sampling()
        self._sampler = _Sampler(self, self._every_s)

    def _end_sampling(self) -> None:
        sampler, self._sampler = self._sampler, None
        if sampler is not None:
            sampler.stop()

    def _thin(self, *every_list: list[Any]) -> None:
        """Keep the memory of a monitor that runs for weeks bounded; what is read together is thinned together."""
        if max(map(len, every_list)) > READINGS_MAX:
            for readings in every_list:
                del readings[::2]
            if self._sampler is not None:
                self._sampler.every_s *= 2

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sampler": None}


class _Updates(Protocol):
    def update(self) -> None:
        """Take one reading."""


class _Sampler:
    """Calls a monitor's `update` every so often in a thread, until it is stopped or the monitor is gone."""

    def __init__(self, monitor: _Updates, every_s: float) -> None:
        self.every_s = every_s
        self._ended = threading.Event()
        name = f"autotune {type(monitor).__name__}"
        self._thread = threading.Thread(target=self._run, args=(WeakMethod(monitor.update),), name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; may be called twice, and in a process that was forked since."""
        self._ended.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self, update: WeakMethod[Callable[[], None]]) -> None:
        while not self._ended.wait(self.every_s):
            call = update()
            if call is None:
                return
            call()
            del call  # else the monitor would be held while this waits


def read_memory(cgroups: Cgroups, device: int | None = None) -> dict[str, float]:
    """Read memory in bytes, and its used share in percent.

    Where a control group allows less than the machine has, its limit is the whole.

    Args:
        cgroups: Control groups whose limits count.
        device: The accelerator that is preferred where this process uses several; None is the first of them.

    Returns:
        `used`, `available`, `percent`; `device_used` and `device_total` where this process uses an accelerator.
    """
    memory = psutil.virtual_memory()
    limit, free = cgroups.memory_limit(), cgroups.memory_free()
    reading: dict[str, float] = {"used": memory.used, "available": memory.available, "percent": memory.percent}
    if limit is not None and limit < memory.total:
        available = min(memory.available, limit if free is None else free)
        reading = {"used": limit - available, "available": available, "percent": 100 * (1 - available / limit)}
    return {**reading, **_read_device(device)}


def _torch_with_cuda() -> Any | None:
    """Give torch where it is loaded and has started CUDA; neither is done here."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return None
    return torch


def _read_device(wanted: int | None) -> dict[str, float]:
    """Read the memory of an accelerator that this process has in use: asking another would create a context there."""
    torch = _torch_with_cuda()
    if torch is None:
        return {}
    others = (index for index in range(torch.cuda.device_count()) if index != wanted)
    asked = others if wanted is None else (wanted, *others)
    device = next((index for index in asked if torch.cuda.max_memory_reserved(index)), None)
    if device is None:
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {"device_used": total - free, "device_total": total}


def busy_percent(before: Any, after: Any) -> float | None:
    """Give the CPUs' busy share between two readings of `psutil.cpu_times()`; None where they are too close."""
    total_s = _total_s(after) - _total_s(before)
    if total_s < _CPU_TIME_MIN_S:
        return None
    idle_s = _idle_s(after) - _idle_s(before)
    return min(100.0, max(0.0, 100 * (1 - idle_s / total_s)))


def _total_s(times: Any) -> float:
    # the kernel counts guests in `user` and `nice` too
    return float(sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0))


def _idle_s(times: Any) -> float:
    return float(times.idle + getattr(times, "iowait", 0.0))
