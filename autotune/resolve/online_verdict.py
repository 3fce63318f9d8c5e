"""From segments of an epoch to a decision, by the paired rules of studies. Pure functions of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from autotune.constants import (
    CONFIRM_PAIRS_MIN,
    DATA_WAIT_TARGET_SHARE,
    EQUIVALENCE_CONFIDENCE,
    EQUIVALENCE_SHARE,
    PROMOTE_RATIO,
    RACE_MARGIN_SHARE,
    WORTHWHILE_RATIO,
)
from autotune.ratios import ratio_interval
from autotune.resolve.online_setting import Setting
from autotune.spec import Interval

OnlineOutcome = Literal["gain", "cheaper", "nothing_to_gain", "undecided", "fallback", "resumed"]
"""What tuning while training came to: faster, as fast for less, as it was, not told, a setting that failed, or what a
run before this one had come to."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the window of one segment showed.

    Attributes:
        setting: The setting.
        samples_per_s: Rate in the window, the consumer included.
        wait_share: Share of the window that went into waiting for batches.
        batches: Batches of the window.
        futile: Whether it was cut short for being far behind.
        batch_bytes: Bytes of its largest batch.
    """

    setting: Setting
    samples_per_s: float
    wait_share: float
    batches: int
    futile: bool = False
    batch_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The setting that the rest of training loads with, and why.

    Attributes:
        setting: The setting.
        outcome: What it came to.
        why: One sentence.
        ratio: Rate of the setting over that of the resolved one, with its 95 % interval; None without pairs.
        pairs: Pairs of segments behind it.
    """

    setting: Setting
    outcome: OnlineOutcome
    why: str
    ratio: Interval | None = None
    pairs: int = 0


Block = Mapping[Setting, Seen]
"""Segments of one block by setting; what failed or was cut short is missing."""


def finalists(base: Seen, screened: Sequence[Seen]) -> list[Setting]:
    """Choose who runs in pairs with the resolved setting: the fastest, and the cheapest that comes near it.

    Values of single segments are good for that and are then thrown away: the best of several flatters itself.
    """
    going = [one for one in screened if not one.futile]
    best = max([base, *going], key=lambda one: one.samples_per_s)
    near = [one for one in going if one.samples_per_s >= best.samples_per_s * (1 - RACE_MARGIN_SHARE)]
    if not near:
        return []
    first = max(near, key=lambda one: one.samples_per_s).setting
    cheapest = min((one.setting for one in near), key=lambda setting: setting.cost)
    return [first] if cheapest.cost >= first.cost else [first, cheapest]


def judge(blocks: Sequence[Block], base: Setting, challengers: Sequence[Setting]) -> Verdict:
    """Decide from blocks in which each setting ran one segment.

    A challenger is taken when the lower end of the 95 % interval of its ratio is above 1.01; of several, the cheapest
    that is shown to be within 2 % of the fastest, or keeps the consumer as busy. Where none is, a cheaper one that is
    shown to lose less than 2 % against the resolved setting is.

    Args:
        blocks: The segments.
        base: The resolved setting.
        challengers: What was tried beside it, less what failed or was given up.
    """
    ratios = {one: ratio for one in challengers if (ratio := _ratio(blocks, one, base)) is not None}
    faster = [one for one, ratio in ratios.items() if ratio.low > PROMOTE_RATIO]
    if faster:
        return _gain(blocks, base, {one: ratios[one] for one in faster})
    equal = [one for one in ratios if one.cost < base.cost and is_equivalent(blocks, one, base)]
    if equal:
        setting = min(equal, key=lambda one: one.cost)
        why = f"{setting.label()} is shown to be within {EQUIVALENCE_SHARE:.0%} of {base.label()} and takes less"
        return Verdict(setting=setting, outcome="cheaper", why=why, **_evidence(blocks, setting, base))
    if not ratios:
        why = f"fewer than {CONFIRM_PAIRS_MIN} pairs of segments could be measured"
        return Verdict(setting=base, outcome="undecided", why=why)
    best = max(ratios, key=lambda one: ratios[one].mean)
    shown = f"{best.label()} is {_shown(ratios[best])} times as fast as {base.label()}"
    if all(ratio.high < WORTHWHILE_RATIO for ratio in ratios.values()):
        return Verdict(setting=base, outcome="nothing_to_gain", why=f"{shown}, which is no worthwhile gain")
    return Verdict(setting=base, outcome="undecided", why=f"{shown}, which tells neither a gain nor that there is none")


def is_equivalent(blocks: Sequence[Block], one: Setting, other: Setting) -> bool:
    """Tell whether a setting is shown to lose less than 2 % against another: a one-sided bound, from three pairs on."""
    ratio = _ratio(blocks, one, other, confidence=2 * EQUIVALENCE_CONFIDENCE - 1)
    return ratio is not None and ratio.low > 1 / (1 + EQUIVALENCE_SHARE)


def _gain(blocks: Sequence[Block], base: Setting, faster: Mapping[Setting, Interval]) -> Verdict:
    first = max(faster, key=lambda one: faster[one].mean)
    fed = [one for one in faster if _wait_share(blocks, one) <= DATA_WAIT_TARGET_SHARE]
    fed = fed if first in fed else []
    equal = [one for one in faster if one == first or one in fed or is_equivalent(blocks, one, first)]
    setting = min(equal, key=lambda one: one.cost)
    why = f"{setting.label()} is {_shown(faster[setting])} times as fast as {base.label()}"
    if setting != first:
        why += f", and takes less than {first.label()}, which is no faster"
    return Verdict(setting=setting, outcome="gain", why=why, **_evidence(blocks, setting, base))


def _evidence(blocks: Sequence[Block], setting: Setting, base: Setting) -> dict[str, Any]:
    return {"ratio": _ratio(blocks, setting, base), "pairs": len(_pairs(blocks, setting, base))}


def _ratio(blocks: Sequence[Block], above: Setting, below: Setting, **level: float) -> Interval | None:
    pairs = _pairs(blocks, above, below)
    if len(pairs) < CONFIRM_PAIRS_MIN:
        return None
    return ratio_interval([pair[0] for pair in pairs], [pair[1] for pair in pairs], **level)


def _pairs(blocks: Sequence[Block], above: Setting, below: Setting) -> list[tuple[float, float]]:
    both = [block for block in blocks if above in block and below in block]
    return [(block[above].samples_per_s, block[below].samples_per_s) for block in both]


def _wait_share(blocks: Sequence[Block], setting: Setting) -> float:
    return fmean([block[setting].wait_share for block in blocks if setting in block])


def _shown(ratio: Interval) -> str:
    return f"{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


__all__ = ["Block", "OnlineOutcome", "Seen", "Verdict", "finalists", "is_equivalent", "judge"]
