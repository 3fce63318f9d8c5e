"""`similarity`: how far results of one machine, dataset and workload can be expected to hold for another. Pure.

It is a product of named parts, each a share from 0 to 1: 1 where nothing differs, and the smaller the more what
differs decides about loading. Amounts (CPUs, bytes, times) count by their ratio, so that both ways give the same. It
orders what is worth a try, and says how far to trust it; nothing is ever served on its account.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from autotune.spec import Consumer, DatasetFacts, MachineFacts, Workload
from autotune.units import format_bytes

_REFERENCE_BATCH_SIZE = 32
"""Batch size at which emulated steps are compared."""

_SHARES: Mapping[str, float] = {
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

_CPUS, _MEMORY, _SAMPLE_BYTES, _LENGTH, _STEP = 0.2, 0.1, 0.1, 0.05, 0.15
"""Powers of ratios: 2 of 8 CPUs are 0.76, a tenth of the samples 0.89. Best configurations change with workers first,
with what fits memory next."""

_SHOWN_BELOW = 0.995
"""Share from which a difference is too small for words."""


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


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """How like two circumstances are, part by part."""

    parts: tuple[Part, ...]

    @cached_property
    def value(self) -> float:
        """The product of all parts, 0 to 1."""
        return math.prod(part.share for part in self.parts)

    def __str__(self) -> str:
        told = [part.reason for part in self.parts if part.share < _SHOWN_BELOW or part.name == "samples"]
        return f"similarity {self.value:.2f}: {'; '.join(told)}"


def similarity(here: Circumstances, there: Circumstances) -> Similarity:
    """Hold circumstances side by side; the value is the same in both directions, the words are those of `here`."""
    return Similarity(parts=tuple(compare(here, there) for compare in _PARTS))


def _samples(here: Circumstances, there: Circumstances) -> Part:
    one, other = here.dataset, there.dataset
    if one.declared and other.declared:
        if one.structure == other.structure:
            return Part(name="samples", share=1.0, reason="same sample structure")
        if _kinds(one.structure) == _kinds(other.structure):
            return Part(name="samples", share=_SHARES["other sizes"], reason="same kinds of arrays in other sizes")
    elif one.type_name == other.type_name:
        same = one.structure == other.structure
        reason = "same class and settings of the dataset" if same else "same class of dataset with other settings"
        return Part(name="samples", share=1.0 if same else _SHARES["other settings"], reason=reason)
    return Part(name="samples", share=_SHARES["other samples"], reason="other samples")


def _sample_bytes(here: Circumstances, there: Circumstances) -> Part:
    one, other = here.dataset, there.dataset
    if (one.type_name, one.structure) == (other.type_name, other.structure):
        return Part(name="sample bytes", share=1.0, reason="same bytes a sample")
    amounts = one.sample_bytes, other.sample_bytes
    return _ratio_part("sample bytes", *amounts, power=_SAMPLE_BYTES, told=_told_bytes("a sample"))


def _length(here: Circumstances, there: Circumstances) -> Part:
    told = "{} instead of {} samples"
    return _ratio_part(
        "length",
        here.dataset.length,
        there.dataset.length,
        power=_LENGTH,
        told=lambda one, other: told.format(_count(one), _count(other)),
    )


def _reader(here: Circumstances, there: Circumstances) -> Part:
    one, other = here.dataset, there.dataset
    if one.iterable != other.iterable:
        return Part(name="reader", share=_SHARES["iterable"], reason="iterable and map-style datasets")
    share = 1.0 if one.type_name == other.type_name else _SHARES["other reader"]
    share *= 1.0 if one.staged == other.staged else _SHARES["stages"]
    same = share == 1.0
    reason = "same class of dataset" if same else f"read by {other.type_name.rpartition('.')[2]}"
    return Part(name="reader", share=share, reason=reason if one.staged == other.staged else f"{reason}, other stages")


def _system(here: Circumstances, there: Circumstances) -> Part:
    same = here.machine.system == there.machine.system
    return Part(
        name="system",
        share=1.0 if same else _SHARES["other system"],
        reason="same system" if same else f"{here.machine.system} instead of {there.machine.system}",
    )


def _cpus(here: Circumstances, there: Circumstances) -> Part:
    one, other = here.machine.cpu_count, there.machine.cpu_count
    return _ratio_part("CPUs", one, other, power=_CPUS, told=lambda *_: f"{one} instead of {other} CPUs")


def _memory(here: Circumstances, there: Circumstances) -> Part:
    amounts = here.machine.memory_bytes, there.machine.memory_bytes
    return _ratio_part("memory", *amounts, power=_MEMORY, told=_told_bytes("of memory"))


def _accelerator(here: Circumstances, there: Circumstances) -> Part:
    one, other = _accelerator_of(here), _accelerator_of(there)
    if one == other:
        return Part(name="accelerator", share=1.0, reason="same accelerator" if one else "no accelerator in either")
    key = "other accelerator" if one and other else "with and without an accelerator"
    reason = f"{one or 'no accelerator'} instead of {other or 'none'}"
    return Part(name="accelerator", share=_SHARES[key], reason=reason)


def _versions(here: Circumstances, there: Circumstances) -> Part:
    one, other = here.machine.versions, there.machine.versions
    shared = sorted(one.keys() & other.keys())
    differing = [name for name in shared if _major(one[name]) != _major(other[name])]
    told = ", ".join(f"{name} {_major(one[name])} instead of {_major(other[name])}" for name in differing)
    share = _SHARES["other major version"] ** len(differing)
    return Part(name="versions", share=share, reason=told or "same major versions")


def _consumer(here: Circumstances, there: Circumstances) -> Part:
    one, other = here.workload.consumer.kind, there.workload.consumer.kind
    return Part(
        name="consumer",
        share=1.0 if one == other else _SHARES["other consumer"],
        reason="same kind of consumer" if one == other else f"consumer {one} instead of {other}",
    )


def _step(here: Circumstances, there: Circumstances) -> Part:
    if here.workload.consumer.kind != there.workload.consumer.kind:
        return Part(name="step", share=1.0, reason="counted with the consumer")
    return _ratio_part(
        "step",
        here.step_s,
        there.step_s,
        power=_STEP,
        told=lambda one, other: f"a step of {_milliseconds(one)} instead of {_milliseconds(other)} a sample",
    )


def _circumstances(here: Circumstances, there: Circumstances) -> Part:
    one, other = here.workload, there.workload
    differing = {
        "page cache": one.page_cache != other.page_cache,
        "other order": one.order != other.order,
        "other loader class": one.loader_class != other.loader_class,
    }
    told = [name for name, differs in differing.items() if differs]
    reason = ", ".join(f"page cache {one.page_cache}" if name == "page cache" else name for name in told)
    share = math.prod(_SHARES[name] for name in told)
    return Part(name="circumstances", share=share, reason=reason or "same page cache, order and loader class")


_PARTS: tuple[Callable[[Circumstances, Circumstances], Part], ...] = (
    _samples,
    _sample_bytes,
    _length,
    _reader,
    _cpus,
    _memory,
    _accelerator,
    _system,
    _versions,
    _consumer,
    _step,
    _circumstances,
)


def _ratio_part(
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
        return Part(name=name, share=_SHARES["unknown amount"], reason=told(one, other))
    return Part(name=name, share=(min(one, other) / max(one, other)) ** power, reason=told(one, other))


def _told_bytes(of: str) -> Callable[[float | None, float | None], str]:
    def told(one: float | None, other: float | None) -> str:
        shown = ["an unknown number" if amount is None else format_bytes(amount) for amount in (one, other)]
        return f"{shown[0]} instead of {shown[1]} {of}"

    return told


def _count(amount: float | None) -> str:
    return "an unknown number" if amount is None else f"{amount:,.0f}"


def _milliseconds(seconds: float | None) -> str:
    return "unknown time" if seconds is None else f"{seconds * 1000:.3g} ms"


def _emulated_s(consumer: Consumer) -> float:
    return (consumer.step_ms / _REFERENCE_BATCH_SIZE + consumer.step_ms_per_sample) / 1000


def _accelerator_of(circumstances: Circumstances) -> str | None:
    """Name what the batches go to; a study on the CPU leaves an accelerator alone."""
    machine = circumstances.machine
    if circumstances.workload.device == "cpu" or machine.accelerator is None:
        return None
    return f"{machine.accelerator_count} {machine.accelerator}"


def _kinds(structure: str) -> str:
    """Leave the sides of arrays out of a structure."""
    return re.sub(r"\[[\d,\s]*\]", lambda found: f"[{found[0].count(',')}]", structure)


def _major(version: str) -> str:
    return version.partition(".")[0]


__all__ = ["Circumstances", "Part", "Similarity", "similarity"]
