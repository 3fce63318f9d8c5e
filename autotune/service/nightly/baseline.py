"""What this very machine measured of a configuration before, which drift is told from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from autotune.constants import CONFIRM_PAIRS_MIN
from autotune.spec import Decision, Interval, NightlyReport


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What a configuration was measured to do.

    Attributes:
        at: When, in UTC.
        ratio: Ratio to PyTorch's default; None where the configuration is the default.
        samples_per_s: Its mean rate; None where that is not known.
        runs: Runs behind the rate.
    """

    at: datetime
    ratio: Interval | None
    samples_per_s: float | None
    runs: int

    @classmethod
    def of(cls, decision: Decision) -> Baseline:
        """Give what a decision has on record for what it deploys."""
        return cls(
            at=decision.decided_at,
            ratio=recorded_ratio(decision),
            samples_per_s=decision.samples_per_s,
            runs=decision.pairs,
        )


def recorded_ratio(decision: Decision) -> Interval | None:
    """Give the ratio to the default that a decision claims for what it deploys; None where that is the default."""
    return decision.ratio if decision.config != decision.default else None


def baseline(
    deployed: Decision, decisions: Sequence[Decision], nights: Iterable[NightlyReport], *, host: str
) -> Baseline | None:
    """Give what drift is told from: the last decision of this host, or the last night here that led to a search.

    Hosts of one class differ in what no fact tells, as their disks, so what another one measured is no measure for
    this one: without anything of its own, the first night on this host is what later ones are held against. After a
    search nothing that it was run for is drift any more, whatever it came to.

    Args:
        deployed: What is deployed.
        decisions: All decisions of the study.
        nights: Nights of this host before this one, newest first.
        host: Name of this host.
    """
    same = {one.key: one for one in decisions if _same(one, deployed)}
    decided = [Baseline.of(one) for one in same.values() if one.machine.host == host and one.samples_per_s is not None]
    checked = list(_checked(nights, same, deployed.study))
    searched = [found for found, after_search in checked if after_search]
    known = [*decided, *searched]
    if known:
        return max(known, key=lambda one: one.at)
    return checked[-1][0] if checked else None


def _checked(
    nights: Iterable[NightlyReport], same: Mapping[str, Decision], study: str
) -> Iterable[tuple[Baseline, bool]]:
    for night in nights:
        for one in night.studies:
            if one.study == study and one.before_key in same and one.measured_samples_per_s is not None:
                found = Baseline(
                    at=night.started_at,
                    ratio=one.measured,
                    samples_per_s=one.measured_samples_per_s,
                    runs=CONFIRM_PAIRS_MIN,  # at the least: a night keeps the mean alone
                )
                yield found, one.searched


def _same(decision: Decision, deployed: Decision) -> bool:
    """Tell whether two decisions deploy the same configuration under the same circumstances."""
    return (decision.config, decision.workload, decision.dataset) == (
        deployed.config,
        deployed.workload,
        deployed.dataset,
    )
