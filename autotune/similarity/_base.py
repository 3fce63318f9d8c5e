"""What is compared, and what comparing one respect of it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autotune.spec import Consumer, DatasetFacts, MachineFacts, Workload
from autotune.units import format_bytes

_REFERENCE_BATCH_SIZE = 32
"""Batch size at which emulated steps are compared."""

SHARES: Mapping[str, float] = {
    "other system": 0.7,  # how processes start, and how fast they hand batches over
    "with and without an accelerator": 0.5,  # pinning and the device cache have no effect without one
    "other accelerator": 0.9,
    "other samples": 0.6,  # what is slow may be another stage altogether
    "other sizes": 0.9,
    "other settings": 0.9,
    "other reader": 0.85,  # reading and decoding cost something else, storing them decoded the same
    "stages": 0.85,  # without them some archives and caches are impossible
    "iterable": 0.3,  # no archive, no cache
    "other consumer": 0.7,  # what feeds one step need not be what loads fastest
    "page cache": 0.6,  # waiting for storage is another problem than decoding
    "other order": 0.8,
    "other loader class": 0.9,
    "other major version": 0.9,
    "unknown amount": 0.9,
}
"""What is left of the trust with each difference of kind; several multiply."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What a result depends on apart from the configuration.

    Attributes:
        machine: The machine.
        dataset: The dataset.
        workload: What is measured.
        consume_s_per_sample: Seconds that the consumer takes for a sample, where it was measured; None is unknown.
    """

    machine: MachineFacts
    dataset: DatasetFacts
    workload: Workload
    consume_s_per_sample: float | None = None

    @property
    def step_s(self) -> float | None:
        """Seconds of the step for a sample: as it is emulated, else as it was measured; None without or unknown."""
        consumer = self.workload.consumer
        if consumer.kind == "emulated":
            return _emulated_s(consumer)
        return self.consume_s_per_sample if consumer.kind == "step" else None


@dataclass(frozen=True, kw_only=True)
class Part:
    """One respect in which two circumstances are held side by side.

    Attributes:
        name: What it is about.
        share: What is left of the trust, 0 to 1; 1 where nothing differs.
        reason: What is the same or differs, for people.
    """

    name: str
    share: float
    reason: str


def ratio_part(
    name: str,
    one: float | None,
    other: float | None,
    *,
    power: float,
    told: Callable[[float | None, float | None], str],
) -> Part:
    """Compare two amounts by the smaller over the larger one; where only one is known, by what is unknown."""
    if one == other:
        return Part(name=name, share=1.0, reason=f"same {name}")
    if not one or not other:
        return Part(name=name, share=SHARES["unknown amount"], reason=told(one, other))
    return Part(name=name, share=(min(one, other) / max(one, other)) ** power, reason=told(one, other))


def told_bytes(of: str) -> Callable[[float | None, float | None], str]:
    """Give what writes two amounts of bytes side by side, with what they are of."""

    def told(one: float | None, other: float | None) -> str:
        shown = ["an unknown number" if amount is None else format_bytes(amount) for amount in (one, other)]
        return f"{shown[0]} instead of {shown[1]} {of}"

    return told


def _emulated_s(consumer: Consumer) -> float:
    return (consumer.step_ms / _REFERENCE_BATCH_SIZE + consumer.step_ms_per_sample) / 1000
