"""Sharing what is left of a night among the studies that need a search. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from autotune.constants import NIGHT_OVERHEAD_S, NIGHT_SHARE_MIN
from autotune.service.nightly.planning import Plan

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def by_need(plans: Sequence[Plan]) -> list[Plan]:
    """Order studies by how much they need a search; among equals what was decided longest ago goes first."""
    return sorted(plans, key=lambda one: (one.need, one.decided_at or _NEVER, one.spec.name))


def shares(plans: Sequence[Plan], left_s: float) -> list[float]:
    """Give the budget of each search in seconds, in the order given; 0 where another night has to do it.

    Each gets what its file asks for where that fits. Else all get the same part of it, as long as that is enough for
    a decision; what needs it least goes without.

    Args:
        plans: The studies, those that need it most first.
        left_s: What is left of the night.
    """
    for count in range(len(plans), 0, -1):
        part = _part(plans[:count], left_s - count * NIGHT_OVERHEAD_S)
        if part >= NIGHT_SHARE_MIN:
            return [one.spec.budget.time_s * part if place < count else 0.0 for place, one in enumerate(plans)]
    return [0.0] * len(plans)


def _part(plans: Sequence[Plan], left_s: float) -> float:
    """Give the part of its budget, at most the whole, that each search can have.

    One whose fewest runs take longer than its part takes what they take, which the others go without.
    """
    part, quick = 1.0, list(plans)
    while quick:
        part = min(1.0, left_s / sum(one.spec.budget.time_s for one in quick))
        slow = [one for one in quick if one.least_s > part * one.spec.budget.time_s]
        if not slow:
            return part
        left_s -= sum(one.least_s for one in slow)
        quick = [one for one in quick if one not in slow]
    return part if left_s >= 0 else 0.0
