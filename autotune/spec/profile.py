"""`Profile`: where the time and memory of a batch go, as one probe process found it."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Self

from pydantic import Field

from autotune.spec.base import Value


class Line(Value):
    """A cost of a batch as a straight line over its size: seconds, or bytes."""

    fixed: float = 0.0
    per_sample: float = 0.0

    def at(self, batch_size: int) -> float:
        """Give the cost of a batch of a size."""
        return self.fixed + self.per_sample * batch_size

    @classmethod
    def through(cls, costs: Mapping[int, float]) -> Self:
        """Fit the line to costs by batch size, by least squares; neither part of it is below 0."""
        if not costs:
            return cls()
        mean_size, mean_cost = fmean(costs), fmean(costs.values())
        spread = sum((size - mean_size) ** 2 for size in costs)
        slope = sum((size - mean_size) * (cost - mean_cost) for size, cost in costs.items()) / spread if spread else 0.0
        fixed = mean_cost - slope * mean_size
        if slope < 0:
            return cls(fixed=max(0.0, mean_cost))
        if fixed < 0 or not spread:
            through_zero = sum(size * cost for size, cost in costs.items()) / sum(size**2 for size in costs)
            return cls(per_sample=max(0.0, through_zero))
        return cls(fixed=fixed, per_sample=slope)


class Bound(Value):
    """What no loader can exceed at one batch size.

    Attributes:
        batch_size: Samples in a batch.
        samples_per_s: Rate of one thread that gathers random whole batches from memory, the consumer included.
    """

    batch_size: int = Field(ge=1)
    samples_per_s: float = Field(gt=0)


class Profile(Value):
    """What a probe found out in one process, before anything is searched.

    Attributes:
        sample_s: Seconds for one sample from plain files, in one thread.
        sample_variation: Standard deviation of that over its mean.
        read_s: Part of it for reading the original bytes; None where the dataset has no stages.
        decode_s: Part of it for decoding them; None likewise.
        augment_s: Part of it for augmentation; None without any.
        decoders: Seconds to decode one sample by each decoder that the dataset offers.
        collate: Seconds to put samples together to a batch, in the process that loads.
        gather: Seconds to take a whole batch from memory at once.
        hand_over: Seconds of the consuming process for a batch that a worker made.
        send: Seconds of a worker for a batch, beyond its samples and their collating.
        consume: Seconds of transfer and step.
        consume_cpu_share: Part of the consumer's time in which it keeps a CPU busy.
        memory_alone: Device memory in bytes where the consuming process loads by itself; None is unknown.
        memory_workers: The same with workers.
        bounds: Rates that no loader can exceed, by batch size.
        wall_s: Wall time of the probe.
        host: The machine that was probed; None is unknown.
    """

    sample_s: float = Field(gt=0)
    sample_variation: float = Field(default=0.0, ge=0)
    read_s: float | None = None
    decode_s: float | None = None
    augment_s: float | None = None
    decoders: Mapping[str, float] = Field(default={})
    collate: Line = Line()
    gather: Line = Line()
    hand_over: Line = Line()
    send: Line = Line()
    consume: Line = Line()
    consume_cpu_share: float = Field(default=1.0, ge=0, le=1)
    memory_alone: Line | None = None
    memory_workers: Line | None = None
    bounds: tuple[Bound, ...] = ()
    wall_s: float = Field(default=0.0, ge=0)
    host: str | None = None

    def bound(self, batch_size: int) -> float | None:
        """Give the rate in samples/s that no loader can exceed; between measured sizes by their seconds."""
        known = sorted(self.bounds, key=lambda bound: bound.batch_size)
        if not known:
            return None
        for bound in known:
            if bound.batch_size == batch_size:
                return bound.samples_per_s
        below = [bound for bound in known if bound.batch_size < batch_size]
        above = [bound for bound in known if bound.batch_size > batch_size]
        first, second = (below[-1], above[0]) if below and above else (known[0], known[-1])
        if first.batch_size == second.batch_size:
            return first.samples_per_s
        first_s, second_s = (bound.batch_size / bound.samples_per_s for bound in (first, second))
        share = (batch_size - first.batch_size) / (second.batch_size - first.batch_size)
        # outside of what was measured a line may go through zero: the nearest rate then holds
        seconds = first_s + share * (second_s - first_s)
        nearest = min(known, key=lambda bound: abs(bound.batch_size - batch_size))
        return batch_size / seconds if seconds > 0 else nearest.samples_per_s


class Headroom(Value):
    """Distance from what any loader could reach; both None where it was not measured.

    Attributes:
        bound_samples_per_s: The bound.
        share: Rate of the chosen configuration over it.
    """

    bound_samples_per_s: float | None = None
    share: float | None = None


class Bottleneck(Value):
    """Where the time of one configuration goes, by the estimate.

    Attributes:
        config: Label of the configuration.
        stage: The stage that limits it.
        limit: What that stage runs in: `workers`, `cores` or `consuming process`.
        stages: Milliseconds of one thread for a batch, by stage.
        estimated_samples_per_s: Rate that the estimate gives.
    """

    config: str
    stage: str
    limit: str
    stages: Mapping[str, float] = Field(default={})
    estimated_samples_per_s: float | None = None
