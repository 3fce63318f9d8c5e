"""`Measurement` and `Failure`: the two things that a trial can come to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from autotune.spec.base import Value

PageCacheState = Literal["warm", "cold", "unknown"]


class Interval(Value):
    """A mean with its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def half_width_share(self) -> float:
        """Half of the interval's width as a share of the mean."""
        return (self.high - self.low) / 2 / self.mean if self.mean else float("inf")


class Window(Value):
    """One timed stretch of batches, on the monotonic clock.

    Attributes:
        seconds: Wall time, consumer included.
        samples: Samples that reached the device.
        batches: Batches.
        wait_s: Part of `seconds` spent waiting for the loader.
        cpu_s: CPU time that the loading process and its workers took; None where unknown.
        cpu_by_others_share: CPU time of other processes as a share of one core; None where unknown.
        set_aside: Whether it was disturbed and is left out of the mean.
    """

    seconds: float = Field(gt=0)
    samples: int = Field(ge=1)
    batches: int = Field(ge=1)
    wait_s: float = Field(ge=0)
    cpu_s: float | None = Field(default=None, ge=0)
    cpu_by_others_share: float | None = None
    set_aside: bool = False


class MemoryUse(Value):
    """Memory of one trial.

    Attributes:
        device_peak_bytes: Peak that counts against the limit; None where it could not be read.
        device_limit_bytes: The limit in bytes, headroom not yet taken off.
        instrument: `cuda_reserved` or `rss_anon`.
        host_pss_bytes: Proportional set size of the process tree.
        host_limit_bytes: The smaller of RAM and cgroup limit.
        shm_predicted_bytes: Shared memory that prefetched batches need at most.
        shm_free_bytes: Free shared memory before the run.
    """

    device_peak_bytes: int | None = None
    device_limit_bytes: int | None = None
    instrument: Literal["cuda_reserved", "rss_anon"] | None = None
    host_pss_bytes: int | None = None
    host_limit_bytes: int | None = None
    shm_predicted_bytes: int | None = None
    shm_free_bytes: int | None = None


class Phases(Value):
    """Seconds of everything that is not in the rate.

    Attributes:
        build_s: Dataset, archive view, cache and loader.
        archive_build_s: Building the archive in this run; 0 where it was there.
        cache_fill_s: Filling the cache.
        page_cache_s: Bringing the page cache into its state.
        first_batch_s: `iter()` to the first batch, worker start included.
        ramp_s: `iter()` to the steady state, less what its batches cost in that state.
        measured_s: Timed windows together.
    """

    build_s: float = Field(default=0.0, ge=0)
    archive_build_s: float = Field(default=0.0, ge=0)
    cache_fill_s: float = Field(default=0.0, ge=0)
    page_cache_s: float = Field(default=0.0, ge=0)
    first_batch_s: float = Field(default=0.0, ge=0)
    ramp_s: float = Field(default=0.0, ge=0)
    measured_s: float = Field(default=0.0, ge=0)


class ArchiveUse(Value):
    """What the archive costs.

    Attributes:
        size_bytes: Bytes on disk.
        build_s: Seconds that its build took, whenever that was.
    """

    size_bytes: int = Field(ge=0)
    build_s: float = Field(default=0.0, ge=0)


class CacheUse(Value):
    """What the cache did.

    Attributes:
        fraction: Share of samples that has a place in the cache, after clamping to what fits.
        size_bytes: Bytes held.
        filled: Samples held.
        hits: Reads answered by the cache while measuring.
        misses: Reads that went to the dataset.
    """

    fraction: float = Field(ge=0, le=1)
    size_bytes: int = Field(ge=0)
    filled: int = Field(default=0, ge=0)
    hits: int = Field(default=0, ge=0)
    misses: int = Field(default=0, ge=0)


class Measurement(Value):
    """How fast one configuration was, with the circumstances.

    Attributes:
        samples_per_s: The score: `N / (N / steady + ramp)` for a full epoch of `epoch_samples`.
        steady: Rate over the windows with its interval.
        windows: All windows, those set aside included.
        whole_epochs: Whether each window is an epoch from `iter()` to exhaustion.
        epoch_samples: Samples of a full epoch.
        wait_p50_s: Median wait for a batch.
        wait_p95_s: 95th percentile of it.
        data_wait_share: Share of the windows' time spent waiting for the loader.
        stopped: Why measuring ended.
        unsteady: First and second half differ by more than 5 % even after extending.
        page_cache: State that was verified.
        page_cache_resident_share: Share of the files' pages in memory, where it can be read.
        bytes_read: Bytes that the process tree read while measuring; None where unknown.
        archive: What the archive costs; None for `files`.
        throttled_s: Seconds of cgroup throttling while measuring.
        load_average: One-minute load average before the run.
        seed: Seed of the order.
    """

    samples_per_s: float = Field(gt=0)
    steady: Interval
    windows: tuple[Window, ...]
    whole_epochs: bool
    epoch_samples: int = Field(ge=1)
    wait_p50_s: float = Field(ge=0)
    wait_p95_s: float = Field(ge=0)
    data_wait_share: float = Field(ge=0, le=1)
    stopped: Literal["precise", "time_cap", "futility"]
    unsteady: bool = False
    memory: MemoryUse = MemoryUse()
    phases: Phases = Phases()
    archive: ArchiveUse | None = None
    cache: CacheUse | None = None
    page_cache: PageCacheState = "unknown"
    page_cache_resident_share: float | None = None
    bytes_read: int | None = None
    throttled_s: float | None = None
    load_average: float | None = None
    seed: int = 0

    @property
    def busy_cpus(self) -> float | None:
        """CPUs that the loading process and its workers kept busy on average; None where unknown."""
        known = [(window.cpu_s, window.seconds) for window in self.windows if window.cpu_s is not None]
        return sum(spent for spent, _ in known) / sum(seconds for _, seconds in known) if known else None


FailureKind = Literal[
    "device_memory",
    "host_memory",
    "shared_memory",
    "file_descriptors",
    "disk_space",
    "budget",
    "unmeasurable",
    "timed_out",
    "crashed",
    "bad_data",
    "random_samples",
    "repeated_samples",
    "empty",
    "senseless",
    "invalid",
    "abandoned",
]

LIMIT_KINDS: frozenset[FailureKind] = frozenset(
    {"device_memory", "host_memory", "shared_memory", "file_descriptors", "disk_space", "budget", "unmeasurable"}
)
"""Failures that say that a limit was passed: infeasible. All others are failed."""


class Failure(Value):
    """Why a trial has no measurement.

    Attributes:
        kind: What it is, decided by type and exit status, never by message text.
        phase: Where it happened: `predict`, `start`, `build`, `archive`, `cache`, `warm`, `measure`, `report`.
        message: What a person can act on.
        retryable: Whether it may go well the next time.
        excess: How far over the limit, as a share of it; 1.0 where that has no meaning.
        memory: What was measured of memory until then.
    """

    kind: FailureKind
    phase: str
    message: str
    retryable: bool = False
    excess: float = Field(default=1.0, gt=0)
    memory: MemoryUse | None = None

    @property
    def infeasible(self) -> bool:
        """Whether a limit was passed."""
        return self.kind in LIMIT_KINDS
