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
        asked_s = sum(one.spec.budget.time_s for one in plans[:count])
        part = min(1.0, (left_s - count * NIGHT_OVERHEAD_S) / asked_s)
        if part >= NIGHT_SHARE_MIN:
            return [one.spec.budget.time_s * part if place < count else 0.0 for place, one in enumerate(plans)]
    return [0.0] * len(plans)
