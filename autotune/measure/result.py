"""Puts together the `Measurement` of a run from what loop, meters and phases found."""

from __future__ import annotations

import numpy as np

from autotune.measure.limits import check_rate
from autotune.measure.throughput import Throughput
from autotune.measure.window import counted, rate_interval
from autotune.spec import ArchiveUse, CacheUse, Measurement, MemoryUse, PageCacheState, Phases


def assemble(
    found: Throughput,
    *,
    epoch_samples: int | None,
    memory: MemoryUse,
    phases: Phases,
    seed: int,
    archive: ArchiveUse | None = None,
    cache: CacheUse | None = None,
    page_cache: PageCacheState = "unknown",
    page_cache_resident_share: float | None = None,
    bytes_read: int | None = None,
    throttled_s: float | None = None,
    load_average: float | None = None,
) -> Measurement:
    """Check that the result makes sense and put it together with its circumstances.

    Args:
        found: What the loop found.
        epoch_samples: Samples of a full epoch; None takes the longest epoch, or stretch of one, that was seen.
        memory: What the meters found.
        phases: Seconds of everything before the windows; ramp, first batch and windows are filled in here.
        seed: Seed of the order.
        archive: What the archive costs.
        cache: What the cache did.
        page_cache: Verified state.
        page_cache_resident_share: Share of resident pages.
        bytes_read: Bytes fetched from storage while measuring.
        throttled_s: Seconds of throttling while measuring.
        load_average: One-minute load average before the run.

    Raises:
        MeasurementStoppedError: The rate is no rate.
    """
    windows = counted(found.windows)
    check_rate(found.samples_per_s)
    seconds = sum(window.seconds for window in windows)
    measured_s = sum(window.seconds for window in found.windows)
    waits = found.waits_s or [0.0]
    seen = found.delivered_samples or sum(window.samples for window in found.windows)
    return Measurement(
        samples_per_s=found.samples_per_s,
        steady=rate_interval(windows),
        windows=tuple(found.windows),
        whole_epochs=found.whole_epochs,
        epoch_samples=epoch_samples or seen,
        wait_p50_s=float(np.percentile(waits, 50)),
        wait_p95_s=float(np.percentile(waits, 95)),
        data_wait_share=min(1.0, sum(window.wait_s for window in windows) / seconds),
        stopped=found.stopped,
        unsteady=found.unsteady,
        memory=memory,
        phases=phases.replace(first_batch_s=found.first_batch_s, ramp_s=found.ramp_s, measured_s=measured_s),
        archive=archive,
        cache=cache,
        page_cache=page_cache,
        page_cache_resident_share=page_cache_resident_share,
        bytes_read=bytes_read,
        throttled_s=throttled_s,
        load_average=load_average,
        seed=seed,
    )
