"""The analytic estimate: a rate for every configuration, from one probe. It orders first guesses, no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

from autotune.spec import Inspection, LoaderConfig, Profile
from autotune.spec.config import DEFAULT_PREFETCH_FACTOR


class ReadCost(NamedTuple):
    """What a stored sample costs beyond a copy from memory: seconds for each sample, and for each of its bytes."""

    sample_s: float
    byte_s: float


_MEMORY = ReadCost(0.0, 0.0)
READ_COSTS: Mapping[str, ReadCost] = {
    "npy": ReadCost(0.0, 2.1e-11),
    "hdf5": ReadCost(0.0, 7.4e-11),
    "lmdb": ReadCost(1.2e-6, 3.8e-11),
    "tar": ReadCost(7e-6, 2.7e-10),
    "webdataset": ReadCost(7e-6, 2.9e-10),
    "tar.zst": ReadCost(1e-5, 1.45e-9),
    "tar.gz": ReadCost(1e-5, 3.1e-9),
    "tar.xz": ReadCost(1e-5, 1.4e-8),
    "disk": ReadCost(5e-5, 7.6e-10),
}
"""By format, and for the disk cache; studies/records/2026-11-21-archives.md (320 KiB a sample) and -C (3 KiB), less
what the memory cache took there."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one configuration should come to.

    Attributes:
        samples_per_s: Rate over full epochs.
        stages: Seconds of one thread for one batch, by stage: `read` and `decode`, or `gather` where samples are
            stored decoded, `augment`, `collate`, `send`, `hand over`, `consume`.
        limit: What the rate is limited by: `workers`, `cores`, or `consuming process`.
    """

    samples_per_s: float
    stages: Mapping[str, float]
    limit: str

    @property
    def bottleneck(self) -> str:
        """The stage that takes longest among those that limit the rate."""
        main = ("hand over", "consume")
        counted = {
            "workers": [name for name in self.stages if name not in main],
            "cores": list(self.stages),
            "consuming process": list(self.stages) if "hand over" not in self.stages else list(main),
        }[self.limit]
        return max(counted, key=lambda name: self.stages[name])


def estimate(config: LoaderConfig, profile: Profile, inspection: Inspection) -> Estimate:
    """Estimate the rate of a configuration.

    Workers share the cores with each other and with the consuming process; that process takes each batch over,
    transfers and consumes it. Prefetching hides how batches vary in time, the more of them are ready. An epoch
    begins with an empty queue.

    Args:
        config: Canonical configuration.
        profile: What the probe found.
        inspection: Length of the dataset, bytes of a sample, cores.
    """
    batch, workers = config.batch_size, config.num_workers
    loading = _loading(config, profile, inspection)
    consume_s = profile.consume.at(batch)
    if not workers:
        stages = {**loading, "consume": consume_s}
        batch_s = sum(stages.values())
        return Estimate(samples_per_s=_rate(inspection, batch, batch_s, 0.0), stages=stages, limit="consuming process")
    loading["send"] = profile.send.at(batch)
    worker_s, hand_over_s = sum(loading.values()), profile.hand_over.at(batch)
    busy_s = worker_s + hand_over_s + consume_s * profile.consume_cpu_share
    limits = {
        "workers": worker_s / workers,
        "cores": busy_s / inspection.machine.cpu_count,
        "consuming process": hand_over_s + consume_s,
    }
    limit = max(limits, key=lambda name: limits[name])
    ready = workers * (config.prefetch_factor or DEFAULT_PREFETCH_FACTOR)
    variation = profile.sample_variation / sqrt(batch) / sqrt(2 * ready)
    batch_s = limits[limit] * (1 + variation)
    stages = {**loading, "hand over": hand_over_s, "consume": consume_s}
    return Estimate(samples_per_s=_rate(inspection, batch, batch_s, worker_s), stages=stages, limit=limit)


def _rate(inspection: Inspection, batch: int, batch_s: float, ramp_s: float) -> float:
    length = inspection.dataset.length
    return length / (length / batch * batch_s + ramp_s) if length else batch / batch_s


def _loading(config: LoaderConfig, profile: Profile, inspection: Inspection) -> dict[str, float]:
    """Give the seconds by stage in which one thread loads one batch."""
    stored = _from_storage(config, profile, inspection)
    if config.cache == "none":
        return stored
    share = config.cache_fraction or 1.0
    cost = READ_COSTS["disk"] if config.cache == "disk" else _MEMORY
    cached = _from_memory(config.batch_size, cost, profile, inspection)
    return {name: share * cached.get(name, 0.0) + (1 - share) * stored.get(name, 0.0) for name in {**stored, **cached}}


def _from_storage(config: LoaderConfig, profile: Profile, inspection: Inspection) -> dict[str, float]:
    if config.stored == "decoded":
        return _from_memory(config.batch_size, READ_COSTS[config.archive], profile, inspection)
    batch = config.batch_size
    own_s = profile.decoders.get(config.decoder or "", profile.sample_s)
    if profile.read_s is None or profile.decode_s is None:
        return {"read": 0.0, "decode": batch * own_s, "collate": profile.collate.at(batch)}
    augment_s = profile.augment_s or 0.0
    read_s = min(profile.read_s, own_s)
    decode_s = max(0.0, own_s - read_s - augment_s)
    if config.archive != "files":
        cost = READ_COSTS[config.archive]
        read_s = cost.sample_s + cost.byte_s * (inspection.encoded_bytes or 0)
        decode_s = profile.decode_s if config.decoder is None else decode_s
    return _named(batch, profile, read_s=read_s, decode_s=decode_s, augment_s=augment_s)


def _named(batch: int, profile: Profile, *, read_s: float, decode_s: float, augment_s: float) -> dict[str, float]:
    stages = {"read": batch * read_s, "decode": batch * decode_s, "collate": profile.collate.at(batch)}
    return {**stages, "augment": batch * augment_s} if augment_s else stages


def _from_memory(batch: int, cost: ReadCost, profile: Profile, inspection: Inspection) -> dict[str, float]:
    """Whole batches are gathered where nothing is done to single samples afterwards."""
    read_s = batch * (cost.sample_s + cost.byte_s * inspection.sample_bytes) + profile.gather.at(batch)
    if inspection.augmented or inspection.varying:
        augment_s = batch * (profile.augment_s or 0.0)
        return {"gather": read_s, "augment": augment_s, "collate": profile.collate.at(batch)}
    return {"gather": read_s}
