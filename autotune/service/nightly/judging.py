"""What the figures of a check mean: drift beyond noise, and a deployment that is a loss. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtrit

from autotune.constants import CONFIDENCE, DRIFT_SHARE, PROMOTE_RATIO, RUN_TO_RUN_SHARE, WORTHWHILE_RATIO
from autotune.registry import SAFE_DEFAULT
from autotune.service.nightly.baseline import Baseline
from autotune.spec import Decision, Interval
from autotune.units import format_rate


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a check measured.

    Attributes:
        against_default: Ratio of what is deployed to PyTorch's default; None where that is deployed, or could not be
            measured.
        against_before: Ratio to what was deployed before it; None without.
        before_against_default: Ratio of what was deployed before to the default; None without.
        rates: Rates of what is deployed, run by run, in samples/s.
        failure: What became of the deployed configuration where it failed twice; None where it did not.
        hindered: What kept it from being measured, as an archive that could not be built: that says nothing of how it
            loads. None where it could be.
        failed_once: What became of a single run of it that failed among others that did not; None without one.
        before_fails: Whether a run of what was deployed before failed.
        default_runs: Whether the default could be measured.
        run_s: What a run took, in seconds, without archives that it had to build; 0 without any.
    """

    against_default: Interval | None = None
    against_before: Interval | None = None
    before_against_default: Interval | None = None
    rates: Sequence[float] = ()
    failure: str | None = None
    hindered: str | None = None
    failed_once: str | None = None
    before_fails: bool = False
    default_runs: bool = True
    run_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A deployment that is a loss.

    Attributes:
        to: What is to be deployed in its place: the key of a decision, or `SAFE_DEFAULT`.
        reason: Why, with the figures.
    """

    to: str
    reason: str


def loss(figures: Figures, before: Decision | None) -> Loss | None:
    """Tell whether what is deployed has to be taken back: it fails, or is slower than what it took the place of.

    Slower means that the 95 % interval of the ratio lies below 1 by as much as one above it has to for a promotion.

    Args:
        figures: What was measured.
        before: The decision that was deployed before; None without one.
    """
    reasons = []
    if figures.failure is not None and figures.default_runs:
        reasons.append(f"it fails: {figures.failure}")
    slower_than_default, slower_than_before = _slower(figures.against_default), _slower(figures.against_before)
    if slower_than_default:
        reasons.append(f"it is slower than the PyTorch default: {_shown(figures.against_default)}")
    if slower_than_before:
        reasons.append(f"it is slower than what was deployed before it: {_shown(figures.against_before)}")
    if not reasons:
        return None
    return Loss(to=_target(figures, before), reason="; ".join(reasons))


def drift(before: Baseline, figures: Figures) -> str | None:
    """Say how the figures differ from those of before on this machine, beyond noise; None where they do not.

    The ratio has drifted where the intervals of now and then do not meet, and the means differ by more than is worth
    a change. The rate has where the interval of now over then lies off 1 by more than machines differ by on any day.
    """
    told = []
    then, now = before.ratio, figures.against_default
    if then is not None and now is not None and _apart(then, now):
        told.append(f"the ratio to the default was {_shown(then)} and is {_shown(now)}")
    change = rate_change(before, figures.rates)
    if change is not None and (change.low > 1 + DRIFT_SHARE or change.high < 1 / (1 + DRIFT_SHARE)):
        was, is_now = format_rate(before.samples_per_s or 0.0), format_rate(fmean(figures.rates))
        told.append(f"the rate was {was} and is {is_now}, {_shown(change)} times")
    return "; ".join(told) or None


def rate_change(before: Baseline, rates: Sequence[float]) -> Interval | None:
    """Give the rate of now over the one of before, with its interval; None without one, or with a single run.

    Of before the mean rate and the number of runs are known, not how they varied: they are taken to vary as those of
    now do, and at least as runs of one configuration do on a quiet machine.
    """
    if before.samples_per_s is None or len(rates) < 2:
        return None
    logs = [math.log(rate) for rate in rates]
    noise = max(stdev(logs), RUN_TO_RUN_SHARE)
    error = noise * math.sqrt(1 / len(logs) + 1 / max(before.runs, 1))
    half = float(stdtrit(len(logs) - 1, (1 + CONFIDENCE) / 2)) * error
    mean = fmean(logs) - math.log(before.samples_per_s)
    return Interval(mean=math.exp(mean), low=math.exp(mean - half), high=math.exp(mean + half))


def _target(figures: Figures, before: Decision | None) -> str:
    """Choose what is deployed instead: what was before, unless that fails too, or is slower than the default."""
    if before is None or figures.before_fails or _slower(figures.before_against_default):
        return SAFE_DEFAULT
    return before.key


def _slower(ratio: Interval | None) -> bool:
    return ratio is not None and ratio.high < 1 / PROMOTE_RATIO


def _apart(then: Interval, now: Interval) -> bool:
    disjoint = now.high < then.low or now.low > then.high
    return disjoint and max(now.mean / then.mean, then.mean / now.mean) > WORTHWHILE_RATIO


def _shown(ratio: Interval | None) -> str:
    return "" if ratio is None else f"{ratio.mean:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
