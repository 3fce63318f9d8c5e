"""`MemoryModel`: what a configuration will need, learned from the probe and from every run, before it is tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from autotune.constants import DEVICE_HEADROOM_SHARE, HOST_HEADROOM_SHARE, PREDICTION_MARGIN
from autotune.spec import Failure, FailureKind, Inspection, Line, LoaderConfig, MemoryUse, Profile, TrialRecord
from autotune.spec.config import DEFAULT_PREFETCH_FACTOR
from autotune.units import format_bytes

_Kind = tuple[bool, bool]
"""Whether workers load, and whether whole batches are read: what the consuming process holds differs by both."""


class MemoryModel:
    """Predicts device, shared and host memory; the more was measured, the better.

    Device memory is a straight line over the batch size, one for each way of loading: from the probe's small
    batches first, from measured peaks as soon as two sizes have them. What broke the limit bounds it from above.

    Args:
        inspection: Bytes of a sample, and the machine.
        limit_bytes: Limit of device memory.
        profile: What the probe found; None without one.
        records: What was measured before.
    """

    def __init__(
        self,
        inspection: Inspection,
        *,
        limit_bytes: int,
        profile: Profile | None = None,
        records: Iterable[TrialRecord] = (),
    ) -> None:
        self._inspection = inspection
        self._limit_bytes = limit_bytes
        self._peaks: dict[_Kind, dict[int, float]] = {}
        self._over: dict[_Kind, int] = {}
        self._host: dict[int, float] = {}
        self._broken: list[TrialRecord] = []
        self._lines: Mapping[_Kind, Line | None] = {
            (False, False): profile.memory_alone if profile else None,
            (True, False): profile.memory_workers if profile else None,
            (True, True): profile.memory_workers if profile else None,
        }
        for record in records:
            self.learn(record)

    def learn(self, record: TrialRecord) -> None:
        """Take in what a run needed, or what it broke."""
        config, failure = record.config, record.failure
        if failure is not None and failure.kind == "device_memory" and failure.phase != "predict":
            kind = _kind(config)
            self._broken.append(record)
            self._over[kind] = min(config.batch_size, self._over.get(kind, config.batch_size))
        if record.measurement is None:
            return
        memory = record.measurement.memory
        if memory.device_peak_bytes is not None:
            peaks = self._peaks.setdefault(_kind(config), {})
            peaks[config.batch_size] = max(peaks.get(config.batch_size, 0.0), memory.device_peak_bytes)
        if memory.host_pss_bytes is not None:
            own = memory.host_pss_bytes - self._shared_bytes(config) - self._cache_bytes(config)
            self._host[config.num_workers] = max(self._host.get(config.num_workers, 0.0), own, 0.0)

    def device_bytes(self, config: LoaderConfig) -> float | None:
        """Predict the peak of device memory; None where nothing is known of this way of loading."""
        peaks = self._peaks.get(_kind(config), {})
        line = Line.through(peaks) if len(peaks) > 1 else self._lines.get(_kind(config))
        if line is None:
            return None
        # what a smaller batch was seen to need, a larger one needs too
        seen = [peak for size, peak in peaks.items() if size <= config.batch_size]
        return max([line.at(config.batch_size), *seen])

    def breach(self, config: LoaderConfig) -> Failure | None:
        """Say which limit a configuration will break, or None where it may hold."""
        return self._device_breach(config) or self._shared_breach(config) or self._host_breach(config)

    def _device_breach(self, config: LoaderConfig) -> Failure | None:
        usable = int(self._limit_bytes * DEVICE_HEADROOM_SHARE)
        memory = MemoryUse(device_limit_bytes=self._limit_bytes)
        needed = config.batch_size * self._inspection.sample_bytes
        if needed > usable:
            text = (
                f"one batch of {config.batch_size} takes {format_bytes(needed)}, the limit leaves "
                f"{format_bytes(usable)}; take a smaller batch"
            )
            return _breach("device_memory", text, needed / usable - 1, memory)
        for record in self._broken:
            smaller = record.config.batch_size <= config.batch_size
            if smaller and record.failure and record.config.replace(batch_size=config.batch_size) == config:
                text = f"the same with batch size {record.config.batch_size} broke the limit already"
                return _breach("device_memory", text, record.failure.excess, memory)
        broken = self._over.get(_kind(config))
        if broken is not None and config.batch_size > broken:
            text = f"batch size {broken} broke the limit already, with the same way of loading"
            return _breach("device_memory", text, config.batch_size / broken - 1, memory)
        predicted = self.device_bytes(config)
        if predicted is not None and predicted > usable * PREDICTION_MARGIN:
            text = (
                f"a batch of {config.batch_size} would take {format_bytes(predicted)} by what smaller ones took, "
                f"the limit leaves {format_bytes(usable)}"
            )
            return _breach("device_memory", text, predicted / usable - 1, memory)
        return None

    def _shared_breach(self, config: LoaderConfig) -> Failure | None:
        whole = self._inspection.machine.shm_bytes
        needed = self._shared_bytes(config)
        if whole is None or needed <= whole:
            return None
        text = (
            f"prefetched batches take up to {format_bytes(needed)} of shared memory, {format_bytes(whole)} are there; "
            "take fewer workers, a smaller prefetch_factor or batch, or enlarge /dev/shm"
        )
        return _breach("shared_memory", text, needed / whole - 1 if whole else 1.0, None)

    def _host_breach(self, config: LoaderConfig) -> Failure | None:
        usable = self._inspection.machine.memory_bytes * HOST_HEADROOM_SHARE
        known = len(self._host) > 1
        processes = Line.through(self._host).at(config.num_workers) if known else max(self._host.values(), default=0.0)
        needed = processes + self._shared_bytes(config)
        if needed <= usable * PREDICTION_MARGIN:
            return None
        text = (
            f"{config.num_workers} workers with their batches would take {format_bytes(needed)} of host memory, "
            f"{format_bytes(usable)} may be used; take fewer workers"
        )
        return _breach("host_memory", text, needed / usable - 1, None)

    def _shared_bytes(self, config: LoaderConfig) -> int:
        """Give what prefetched batches take at most: each worker's queue, one in work and one in use."""
        if not config.num_workers:
            return 0
        ahead = (config.prefetch_factor or DEFAULT_PREFETCH_FACTOR) * config.num_workers + 2
        return ahead * config.batch_size * self._inspection.sample_bytes

    def _cache_bytes(self, config: LoaderConfig) -> float:
        """Give what a memory cache takes; it is cut to what fits before it is filled, and so breaks no limit."""
        if config.cache != "memory":
            return 0.0
        length = self._inspection.dataset.length or 0
        return (config.cache_fraction or 1.0) * length * self._inspection.sample_bytes


def _kind(config: LoaderConfig) -> _Kind:
    return config.num_workers > 0, config.stored == "decoded" or config.cache != "none"


def _breach(kind: FailureKind, message: str, excess: float, memory: MemoryUse | None) -> Failure:
    return Failure(kind=kind, phase="predict", message=message, excess=max(excess, 1e-6), memory=memory)
