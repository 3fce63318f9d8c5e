"""What is alike in two workloads: the consumer, the time of its step, and the conditions of measuring."""

from __future__ import annotations

import math

from autotune.similarity._base import SHARES, Circumstances, Part, ratio_part

_STEP = 0.15
"""Power of the ratio of step times: a step of twice the time is 0.90."""


def compare_consumers(here: Circumstances, there: Circumstances) -> Part:
    """Compare what takes the batches, by kind."""
    one, other = here.workload.consumer.kind, there.workload.consumer.kind
    return Part(
        name="consumer",
        share=1.0 if one == other else SHARES["other consumer"],
        reason="same kind of consumer" if one == other else f"consumer {one} instead of {other}",
    )


def compare_steps(here: Circumstances, there: Circumstances) -> Part:
    """Compare the times of steps of one kind."""
    if here.workload.consumer.kind != there.workload.consumer.kind:
        return Part(name="step", share=1.0, reason="counted with the consumer")
    return ratio_part(
        "step",
        here.step_s,
        there.step_s,
        power=_STEP,
        told=lambda one, other: f"a step of {_milliseconds(one)} instead of {_milliseconds(other)} a sample",
    )


def compare_conditions(here: Circumstances, there: Circumstances) -> Part:
    """Compare page cache, order of samples and loader class."""
    one, other = here.workload, there.workload
    differing = {
        "page cache": one.page_cache != other.page_cache,
        "other order": one.order != other.order,
        "other loader class": one.loader_class != other.loader_class,
    }
    told = [name for name, differs in differing.items() if differs]
    reason = ", ".join(f"page cache {one.page_cache}" if name == "page cache" else name for name in told)
    share = math.prod(SHARES[name] for name in told)
    return Part(name="circumstances", share=share, reason=reason or "same page cache, order and loader class")


def _milliseconds(seconds: float | None) -> str:
    return "unknown time" if seconds is None else f"{seconds * 1000:.3g} ms"
