"""What a decision came to, in the values that the page shows first: outcome, ratio with interval, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autotune.advice import bottleneck_text, smaller_machine_text
from autotune.spec import Decision, Interval
from autotune.spec.record import Outcome
from autotune.tracking.report.preface import Mood
from autotune.tracking.summary import OUTCOME_WORDS
from autotune.units import format_bytes, format_difference, format_rate

Facts = tuple[tuple[str, str], ...]
"""Labels with values, as text."""

MOODS: dict[Outcome, Mood] = {
    "gain": "good",
    "nothing_to_gain": "neutral",
    "undecided": "attention",
    "nothing_feasible": "bad",
}
_STRIP_MARGIN = 1.08
"""Factor that the axis of an interval reaches beyond what it shows."""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """An interval on a logarithmic axis, as percent of its length: where no change, mean, and both ends lie."""

    one: float
    low: float
    mean: float
    high: float

    @classmethod
    def of(cls, ratio: Interval) -> Strip | None:
        """Lay out a ratio; None where it has no logarithm."""
        if not 0 < ratio.low <= ratio.mean <= ratio.high < math.inf:
            return None
        left = math.log(min(1.0, ratio.low) / _STRIP_MARGIN)
        length = math.log(max(1.0, ratio.high) * _STRIP_MARGIN) - left

        def place(value: float) -> float:
            return round(100 * (math.log(value) - left) / length, 2)

        return cls(one=place(1.0), low=place(ratio.low), mean=place(ratio.mean), high=place(ratio.high))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a decision came to.

    Attributes:
        outcome: In a word or two.
        mood: How it is marked.
        meaning: What that means.
        ratio: Ratio of rates as text; empty without one.
        subject: What the ratio compares.
        interval: Its interval and pairs as text.
        strip: The interval as a picture.
        why: The decision's own sentence.
    """

    outcome: str
    mood: Mood
    meaning: str
    ratio: str = ""
    subject: str = ""
    interval: str = ""
    strip: Strip | None = None
    why: str


def verdict_of(decision: Decision) -> Verdict:
    """Put a decision into words."""
    ratio, kept_default = decision.ratio, decision.config == decision.default
    return Verdict(
        outcome=decision.outcome.replace("_", " "),
        mood=MOODS[decision.outcome],
        meaning=OUTCOME_WORDS[decision.outcome],
        ratio=f"{ratio.mean:.2f} ×" if ratio else "",
        subject=f"{'the fastest other' if kept_default else 'the chosen'} configuration over the PyTorch default "
        "at the same batch size",
        interval=interval_text(ratio, decision.pairs) if ratio else "",
        strip=Strip.of(ratio) if ratio else None,
        why=decision.why,
    )


def interval_text(ratio: Interval, pairs: int) -> str:
    """Write an interval with what it rests on."""
    return f"95 % interval {ratio.low:.2f} to {ratio.high:.2f}, {pairs} interleaved pairs of fresh processes"


def chosen_facts(decision: Decision) -> Facts:
    """Give what is known of the chosen configuration; what was not measured has no line."""
    rows = [("configuration", decision.config.label())]
    if decision.samples_per_s is not None:
        rows.append(("rate", format_rate(decision.samples_per_s)))
    if decision.default_samples_per_s is not None:
        default = f"{format_rate(decision.default_samples_per_s)} ({decision.default.label()})"
        rows.append(("PyTorch default", default))
    if decision.batch_size_gain is not None:
        rows.append(("batch size alone", f"{decision.batch_size_gain:.2f} × the same configuration at batch 32"))
    if decision.peak_bytes is not None and decision.limit_bytes is not None:
        share = decision.peak_bytes / decision.limit_bytes
        told = f"{format_bytes(decision.peak_bytes)} of {format_bytes(decision.limit_bytes)} ({share:.0%})"
        rows.append(("device memory", told))
    headroom = decision.headroom
    if headroom.bound_samples_per_s is not None and headroom.share is not None:
        bound = format_rate(headroom.bound_samples_per_s)
        rows.append(("headroom", f"{headroom.share:.0%} of what any loader could reach here ({bound})"))
    if decision.resolution_share is not None:
        told = format_difference(decision.resolution_share)
        rows.append(("resolution", f"less than {told} can't be told in this noise and budget"))
    rows += [("bottleneck", bottleneck_text(found)) for found in decision.bottlenecks]
    rows.append(("smaller machine", smaller_machine_text(decision)))
    return tuple(rows)


def circumstances(decision: Decision) -> Facts:
    """Give where, when and on what a decision was drawn."""
    workload, machine, dataset = decision.workload, decision.machine, decision.dataset
    consumer = workload.consumer
    length = "unknown length" if dataset.length is None else f"{dataset.length:,} samples"
    part = "" if workload.subset is None else f", measured on {workload.subset:,} of them"
    cpus = ", ".join(f"{name} {value:g}" for name, value in sorted(machine.cpu_inputs.items()))
    rows = [
        ("dataset", f"{dataset.type_name}, {length}{part}"),
        ("sample", dataset.structure or "not declared"),
        ("consumer", consumer.kind if consumer.step is None else f"{consumer.kind}: {consumer.step}"),
        ("page cache", workload.page_cache),
        ("order", f"{workload.order}, {'shuffled' if workload.shuffle else 'not shuffled'}, seed {workload.seed}"),
        ("machine", machine.machine_class),
        ("host", f"{machine.host} ({machine.environment})"),
        ("CPUs", f"{machine.cpu_count}{f' (from {cpus})' if cpus else ''}"),
        ("memory", format_bytes(machine.memory_bytes)),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(machine.versions.items())) or "–"),
        ("decided", f"{decision.decided_at:%Y-%m-%d %H:%M} UTC by {decision.decided_by}"),
        ("decision", decision.key),
    ]
    return tuple(rows)
