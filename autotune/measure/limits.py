"""The exception by which a measurement ends early, and the checks that raise it."""

from __future__ import annotations

import math

from autotune.constants import DEVICE_HEADROOM_SHARE, HOST_HEADROOM_SHARE
from autotune.spec import Failure, FailureKind
from autotune.units import format_bytes


class MeasurementStoppedError(Exception):
    """A measurement cannot go on; carries the failure that the trial comes to.

    Args:
        failure: What the record will say.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def stop(kind: FailureKind, phase: str, message: str, *, excess: float = 1.0) -> MeasurementStoppedError:
    """Make the exception of a failure that would come again."""
    return MeasurementStoppedError(Failure(kind=kind, phase=phase, message=message, excess=excess))


def check_device_memory(used_bytes: int, limit_bytes: int) -> None:
    """Compare a peak with what the limit allows.

    Raises:
        MeasurementStoppedError: The peak is above it.
    """
    allowed = limit_bytes * DEVICE_HEADROOM_SHARE
    if used_bytes > allowed:
        raise stop(
            "device_memory",
            "measure",
            f"device memory may reach {DEVICE_HEADROOM_SHARE:.0%} of the limit of {format_bytes(limit_bytes)}, "
            f"got {format_bytes(used_bytes)}; take a smaller batch size or raise memory_limit",
            excess=used_bytes / allowed - 1,
        )


def check_host_memory(used_bytes: int, limit_bytes: int) -> None:
    """Compare the memory of a process tree with what the host allows.

    Raises:
        MeasurementStoppedError: It is above that.
    """
    allowed = limit_bytes * HOST_HEADROOM_SHARE
    if used_bytes > allowed:
        raise stop(
            "host_memory",
            "measure",
            f"the process tree may use {HOST_HEADROOM_SHARE:.0%} of {format_bytes(limit_bytes)} of host memory, "
            f"got {format_bytes(used_bytes)}; take fewer workers, smaller batches or a smaller cache",
            excess=used_bytes / allowed - 1,
        )


def check_shared_memory(needed_bytes: int, free_bytes: int | None) -> None:
    """Compare what prefetched batches need at most with free shared memory.

    Raises:
        MeasurementStoppedError: It does not fit, or cannot be known.
    """
    if free_bytes is None:
        raise stop(
            "unmeasurable",
            "predict",
            "batches of workers travel through shared memory, and its free size cannot be read (no /dev/shm); "
            "take num_workers=0 or mount /dev/shm",
        )
    if needed_bytes > free_bytes:
        raise stop(
            "shared_memory",
            "predict",
            f"prefetched batches need up to {format_bytes(needed_bytes)} of shared memory, "
            f"{format_bytes(free_bytes)} are free; take fewer workers or a smaller batch, or enlarge /dev/shm",
            excess=needed_bytes / max(free_bytes, 1) - 1,
        )


def check_rate(samples_per_s: float) -> None:
    """Refuse a rate that no loader can have.

    Raises:
        MeasurementStoppedError: It is NaN, infinite, 0 or negative.
    """
    if not math.isfinite(samples_per_s) or samples_per_s <= 0:
        raise stop("senseless", "report", f"a rate is finite and above 0, got {samples_per_s} samples/s")


def check_delivered(delivered: int) -> None:
    """Refuse an epoch without samples.

    Raises:
        MeasurementStoppedError: Nothing came.
    """
    if delivered == 0:
        raise stop(
            "empty",
            "measure",
            "an epoch had no batch: the dataset is empty, smaller than one batch with drop_last=True, or gives its "
            "samples only once; take a smaller batch size, more samples, or begin anew at each iter()",
        )


def check_holds_samples(samples: int, batches: int) -> None:
    """Refuse a window whose batches hold nothing, from which no rate follows.

    Raises:
        MeasurementStoppedError: Not one sample came.
    """
    if samples == 0:
        raise stop(
            "senseless",
            "measure",
            f"a window needs at least one sample, got {batches} batches without any; look at what collate_fn returns",
        )


def check_not_repeated(delivered: int, *, num_workers: int, shards_itself: bool) -> None:
    """Refuse an iterable dataset that every worker reads as a whole.

    Raises:
        MeasurementStoppedError: It does not divide itself over workers.
    """
    if not shards_itself:
        raise stop(
            "repeated_samples",
            "measure",
            f"an epoch delivers every sample once, got the same samples from each of {num_workers} workers "
            f"({delivered} samples so far); divide the dataset over workers with torch.utils.data.get_worker_info(), "
            "or take one worker",
        )
