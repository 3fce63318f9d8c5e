"""Peak device memory of the consumer: one interface, one instrument for CUDA and one for the CPU."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Protocol

import torch

from autotune.constants import DEVICE_HEADROOM_SHARE
from autotune.measure.limits import check_device_memory, stop
from autotune.spec import MachineFacts, MemoryLimit
from autotune.units import KIB, MIB

_M_MMAP_THRESHOLD = -3
"""Number of the parameter in glibc's malloc.h."""
_MMAP_THRESHOLD_BYTES, _MMAP_THRESHOLD_MOST_BYTES = 128 * KIB, 32 * MIB
"""What glibc begins with, and what it rises to in a process that frees large blocks."""
_PEAK_RESET = "5"
"""What resets `VmHWM` when written to `/proc/self/clear_refs` (Linux, Documentation/filesystems/proc)."""


class MemoryMeter(Protocol):
    """Watches the device memory that the consumer takes, and ends the run when it is too much.

    Every method that reads raises `MeasurementStoppedError` when the limit is passed, or when
    memory cannot be read: limits fail closed.
    """

    instrument: Literal["cuda_reserved", "rss_anon"]
    peak_bytes: int

    def begin(self) -> None:
        """Take the state before the first batch."""

    def after_batch(self) -> None:
        """Read cheaply: this runs inside windows."""

    def at_edge(self) -> None:
        """Read thoroughly: this runs between windows."""


def make_meter(device: torch.device, limit_bytes: int) -> MemoryMeter:
    """Make the meter of a device."""
    if device.type == "cuda":
        return CudaMeter(device, limit_bytes)
    return AnonymousMeter(limit_bytes)


def limit_in_bytes(limit: MemoryLimit, machine: MachineFacts, device: torch.device) -> int:
    """Turn a limit into bytes; a share is of the device's memory, on CPU of the smaller of RAM and cgroup limit."""
    if limit.size_bytes is not None:
        return limit.size_bytes
    total = machine.memory_bytes
    if device.type == "cuda":
        total = int(torch.cuda.get_device_properties(device).total_memory)
    return int(total * (limit.share or 1.0))


class AnonymousMeter:
    """The consuming process's anonymous memory above its state before the first batch.

    The kernel keeps the peak of resident memory (`VmHWM`); less the mapped files and shared
    memory that are resident, it is the peak of anonymous memory, however short that was. Inside
    windows, one read of `statm` after each batch sees what stays.

    Args:
        limit_bytes: The limit, headroom not yet taken off.
        proc: Folder of the process.
    """

    instrument: Literal["cuda_reserved", "rss_anon"] = "rss_anon"

    def __init__(self, limit_bytes: int, proc: Path = Path("/proc/self")) -> None:
        self.peak_bytes = 0
        self._limit_bytes = limit_bytes
        self._proc = proc
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._start_bytes = 0
        self._file_bytes = 0
        self._statm = -1

    def begin(self) -> None:
        """Take the state before the first batch."""
        try:
            self._statm = os.open(self._proc / "statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise stop("unmeasurable", "measure", f"memory must be readable, got {error}; run on Linux") from error
        give_back_free_memory()
        self._start_bytes = self._anonymous_bytes()
        self._file_bytes = _status_bytes(self._proc / "status").get("RssFile", 0)
        self._reset_peak()

    def after_batch(self) -> None:
        """Read what is held now."""
        self._take(self._anonymous_bytes())

    def at_edge(self) -> None:
        """Read the peak since the last edge."""
        fields = _status_bytes(self._proc / "status")
        # Mapped files that the kernel took back since the last edge were resident at the peak. Where they were not, the
        # next edge tells: a peak comes again with the batches, what is counted too much never goes away.
        file_bytes = max(self._file_bytes, fields.get("RssFile", 0))
        peak = fields.get("VmHWM", 0) - file_bytes - fields.get("RssShmem", 0)
        self._file_bytes = fields.get("RssFile", 0)
        self._reset_peak()
        self._take(max(peak, self._anonymous_bytes()))

    def _take(self, anonymous_bytes: int) -> None:
        self.peak_bytes = max(self.peak_bytes, anonymous_bytes - self._start_bytes)
        check_device_memory(self.peak_bytes, self._limit_bytes)

    def _anonymous_bytes(self) -> int:
        _, resident, shared, *_ = os.pread(self._statm, 200, 0).split()
        return (int(resident) - int(shared)) * self._page_bytes

    def _reset_peak(self) -> None:
        try:
            (self._proc / "clear_refs").write_text(_PEAK_RESET)
        except OSError:  # the peak then holds since the process began, which errs on the safe side
            return


class CudaMeter:
    """Peak of what CUDA's allocator reserves, and what lies outside of it on the device.

    The allocator is capped, so that a breach is an exception.

    Args:
        device: The device.
        limit_bytes: The limit, headroom not yet taken off.
    """

    instrument: Literal["cuda_reserved", "rss_anon"] = "cuda_reserved"

    def __init__(self, device: torch.device, limit_bytes: int) -> None:
        self.peak_bytes = 0
        self._device = device
        self._limit_bytes = limit_bytes
        torch.zeros(1, device=device)  # the context itself takes memory, outside of the allocator
        free, total = torch.cuda.mem_get_info(device)
        self._outside_bytes = total - free - torch.cuda.memory_reserved(device)
        self._enforce(total)

    def begin(self) -> None:
        """Forget the peaks of building."""
        torch.cuda.reset_peak_memory_stats(self._device)
        self._retries = self._allocation_retries()

    def after_batch(self) -> None:
        """Do nothing: the allocator keeps the peak, and is capped."""

    def at_edge(self) -> None:
        """Read the allocator's peak; an allocation that had to be tried again is a breach."""
        self.peak_bytes = torch.cuda.max_memory_reserved(self._device) + self._outside_bytes
        check_device_memory(self.peak_bytes, self._limit_bytes)
        if self._allocation_retries() > self._retries:
            raise stop(
                "device_memory",
                "measure",
                "the allocator had to free its reserve and try again, so device memory is at its limit; "
                "take a smaller batch size",
                excess=0.01,
            )

    def _enforce(self, total_bytes: int) -> None:
        room = self._limit_bytes * DEVICE_HEADROOM_SHARE - self._outside_bytes
        if room <= 0:
            check_device_memory(self._outside_bytes, self._limit_bytes)
        torch.cuda.set_per_process_memory_fraction(min(1.0, max(room, 1) / total_bytes), self._device)

    def _allocation_retries(self) -> int:
        return int(torch.cuda.memory_stats(self._device).get("num_alloc_retries", 0))


def give_back_free_memory() -> None:
    """Let the allocator return what it keeps free: batches that find room there would not be seen."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # glibc's alone; elsewhere less is seen of memory that was used before
        return


@contextmanager
def returned_at_once() -> Iterator[None]:
    """Let the allocator return each large block as soon as it is freed, so that peaks are what was held at a time.

    After larger blocks were freed glibc keeps the next ones in its heap, between whose holes they spread (mallopt(3),
    M_MMAP_THRESHOLD): in a process that has done other things before, a peak would be up to three times the need.
    """
    give_back_free_memory()
    _set_mmap_threshold(_MMAP_THRESHOLD_BYTES)
    try:
        yield
    finally:
        _set_mmap_threshold(_MMAP_THRESHOLD_MOST_BYTES)


def _set_mmap_threshold(size_bytes: int) -> None:
    with suppress(AttributeError, OSError):  # glibc's alone
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, size_bytes)


def _status_bytes(path: Path) -> dict[str, int]:
    """Read the fields of `/proc/self/status` that are given in kB."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    split = (line.replace(":", " ").split() for line in lines)
    return {words[0]: int(words[1]) * KIB for words in split if len(words) == 3 and words[2] == "kB"}
