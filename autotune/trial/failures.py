"""Turns what a trial process raised into a `Failure`: by type and by what the kernel tells, never by text."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic, sleep

import torch

from autotune.errors import (
    ArchiveDamagedError,
    ArchiveError,
    CapacityError,
    DatasetError,
    MissingExtraError,
    RandomSamplesError,
    SampleError,
    SpecError,
)
from autotune.measure.consumers import DeviceTransformFailedError, StepFailedError
from autotune.measure.contention import process_tree
from autotune.measure.limits import MeasurementStoppedError
from autotune.spec import Failure, FailureKind
from autotune.spec.config import CacheName
from autotune.trial.deaths import LONGEST_MESSAGE, signal_name
from autotune.trial.shared_batches import SharedMemoryFullError

_LOOK_AGAIN_S = 0.01
_DESCRIPTOR_MARGIN = 12
"""Free descriptors under which they count as used up; torch itself tries to open 10 before it says so."""
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the kernel's fixed place

_BY_TYPE: tuple[tuple[type[BaseException], FailureKind], ...] = (
    (RandomSamplesError, "random_samples"),
    (SampleError, "bad_data"),
    (ArchiveDamagedError, "bad_data"),
    (DatasetError, "bad_data"),
    (ArchiveError, "invalid"),
    (MissingExtraError, "invalid"),
    (SpecError, "invalid"),
    (StepFailedError, "invalid"),
    (DeviceTransformFailedError, "invalid"),
    (SharedMemoryFullError, "shared_memory"),
)
"""The first that fits; an exception that fits none was raised by the dataset's code."""

_OF_SOCKETS = (EOFError, ConnectionError)
"""What a DataLoader raises where a worker ends while it sends: workers pass descriptors over sockets."""
_OF_LOADERS = (RuntimeError, *_OF_SOCKETS)
"""What a DataLoader raises where a worker is lost or cannot send."""
_ENDING_S = 2.0
"""Longest wait for a worker whose socket is closed to be dead: the kernel closes first and tells the parent later."""

_CACHE_LIMITS: dict[CacheName, FailureKind] = {
    "none": "host_memory",
    "memory": "host_memory",
    "disk": "disk_space",
    "device": "device_memory",
}
"""What has no room left where a cache does not fit."""

_BY_ERRNO: dict[int, FailureKind] = {
    errno.EMFILE: "file_descriptors",
    errno.ENFILE: "file_descriptors",
    errno.ENOSPC: "disk_space",
    errno.EDQUOT: "disk_space",
    errno.ENOMEM: "host_memory",
}


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What was going on when the exception came.

    Attributes:
        phase: The phase.
        cache: Cache mode of the configuration.
        workers: Processes of the loader that are known.
        silent_s: Seconds since the last batch.
        stall_s: Seconds after which the loader gives up waiting; 0 if it never does.
        oom_kills: Processes that the kernel killed for memory since the trial began.
    """

    phase: str
    cache: CacheName = "none"
    workers: Sequence[BaseProcess] = ()
    silent_s: float = 0.0
    stall_s: float = 0.0
    oom_kills: int = 0


def classify(error: BaseException, at: Circumstances) -> Failure:
    """Say what an exception comes to."""
    if isinstance(error, MeasurementStoppedError):
        return error.failure
    found = _by_kernel(error, at)
    if found is None and isinstance(error, _OF_LOADERS) and at.phase == "measure":
        patience_s = _ENDING_S if isinstance(error, _OF_SOCKETS) else 0.0
        found = _lost_worker(at, patience_s) or _silent(at) or _out_of_descriptors(at)
    return found or _by_type(error, at)


def _by_kernel(error: BaseException, at: Circumstances) -> Failure | None:
    """Look for an exhausted resource anywhere among what led to an exception."""
    for link in _chain(error):
        kind: FailureKind | None = _by_errno(link)
        if isinstance(link, torch.cuda.OutOfMemoryError):
            kind = "device_memory"
        elif isinstance(link, MemoryError):
            kind = "host_memory"
        if kind is not None:
            return _failure(kind, at, link)
    return None


def _by_type(error: BaseException, at: Circumstances) -> Failure:
    if isinstance(error, CapacityError):
        excess = max(error.needed_bytes / max(error.available_bytes, 1) - 1, 1e-6)
        kind: FailureKind = "disk_space" if at.phase == "archive" else _CACHE_LIMITS[at.cache]
        return Failure(kind=kind, phase=at.phase, message=str(error), excess=excess)
    for expected, kind in _BY_TYPE:
        if isinstance(error, expected):
            return _failure(kind, at, error)
    return _failure("bad_data" if isinstance(error, Exception) else "crashed", at, error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Go through an exception and what led to it, hidden contexts included."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _by_errno(error: BaseException) -> FailureKind | None:
    if not isinstance(error, OSError) or error.errno is None:
        return None
    kind = _BY_ERRNO.get(error.errno)
    if kind == "disk_space" and str(error.filename or "").startswith(_SHARED_MEMORY):
        return "shared_memory"
    return kind


def _lost_worker(at: Circumstances, patience_s: float) -> Failure | None:
    until_s = monotonic() + patience_s
    while (found := _dead_worker(at)) is None and monotonic() < until_s:
        sleep(_LOOK_AGAIN_S)
    return found


def _dead_worker(at: Circumstances) -> Failure | None:
    codes = {worker.pid: worker.exitcode for worker in at.workers}
    dead = _dead_child()
    if dead is not None:
        codes[dead[0]] = dead[1]
    for pid, code in codes.items():
        if not code:
            continue
        how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        kind: FailureKind = "crashed"
        if code == -signal.SIGBUS:
            kind, how = "shared_memory", f"{how}: shared memory was used up"
        elif code == -signal.SIGKILL and at.oom_kills > 0:
            kind, how = "host_memory", f"was killed for memory (the kernel's count rose by {at.oom_kills})"
        message = f"DataLoader worker {pid} {how}"
        return Failure(kind=kind, phase=at.phase, message=message, retryable=kind == "crashed")
    return None


def _silent(at: Circumstances) -> Failure | None:
    if not at.stall_s or at.silent_s < at.stall_s:
        return None
    message = f"no batch came for {at.silent_s:.0f} s; a worker hangs, or reading is slower than that"
    return Failure(kind="timed_out", phase=at.phase, message=message)


def _out_of_descriptors(at: Circumstances) -> Failure | None:
    """Judge by the descriptors in use: when they run out, torch raises whatever comes next."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for pid in process_tree(os.getpid()):
        with suppress(OSError):
            used = _open_descriptors(pid)
            if used > limit - _DESCRIPTOR_MARGIN:
                message = f"{used} of {limit} file descriptors were in use; raise `ulimit -n`, or take fewer workers"
                return Failure(kind="file_descriptors", phase=at.phase, message=message)
    return None


def _open_descriptors(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError as error:
        if error.errno == errno.EMFILE:
            limit: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return limit
        raise


def _dead_child() -> tuple[int, int] | None:
    """Find a child that ended badly and was not waited for; it is left as it is."""
    with suppress(ChildProcessError):
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None:
            return found.si_pid, found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
    return None


def _failure(kind: FailureKind, at: Circumstances, error: BaseException) -> Failure:
    return Failure(kind=kind, phase=at.phase, message=_message(error), retryable=kind == "crashed")


def _message(error: BaseException) -> str:
    """Put an exception on one line; one that came from a worker ends with the line that says what it was."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = lines[-1].strip() if lines else "no message"
    name = type(error).__name__
    if isinstance(error, SampleError) and error.path and error.path not in text:
        text = f"{error.path}: {text}"
    return (text if name in text else f"{name}: {text}")[:LONGEST_MESSAGE]
