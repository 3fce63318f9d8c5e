"""What tuning while training has tried, what it cost, and what it came to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from autotune.resolve.online_setting import Setting
from autotune.resolve.online_verdict import OnlineOutcome
from autotune.spec import Interval, Value
from autotune.units import format_rate, format_seconds

_SAID: Mapping[str, str] = {
    "trying": "still trying",
    "gain": "gain",
    "cheaper": "as fast for less",
    "nothing_to_gain": "nothing to gain",
    "undecided": "undecided",
    "fallback": "fallback",
    "resumed": "resumed",
}


class TriedSegment(Value):
    """One segment of an epoch under one setting.

    Attributes:
        epoch: Pass over the loader, from 0.
        setting: The setting.
        batches: Batches that it delivered.
        seconds: Time from before its loader was made until its workers had ended, the consumer included.
        switching_s: Part of it that changing the setting took: starting workers, until the first batch, and ending
            them.
        samples_per_s: Rate in its window, within which each batch that is consumed is one that is made; None where
            the segment was too short for a window, or failed.
        wait_share: Share of the window that went into waiting for batches.
        given_up: Whether it was cut short for being far behind.
        failure: What failed; None where nothing did.
    """

    epoch: int
    setting: Setting
    batches: int
    seconds: float
    switching_s: float
    samples_per_s: float | None = None
    wait_share: float | None = None
    given_up: bool = False
    failure: str | None = None

    def __str__(self) -> str:
        told = f"epoch {self.epoch}: {self.setting.label()}: {self.batches} batches in {format_seconds(self.seconds)}"
        told += f", {format_seconds(self.switching_s)} of it for changing"
        if self.samples_per_s is not None and self.wait_share is not None:
            told += f"; {format_rate(self.samples_per_s)}, waiting {self.wait_share:.0%}"
        if self.given_up:
            told += "; given up"
        return told if self.failure is None else f"{told}; failed: {self.failure}"


class OnlineReport(Value):
    """What tuning while training has done so far.

    Attributes:
        base: The resolved setting.
        setting: The setting that batches are loaded with now, between segments.
        outcome: What it came to; `trying` before.
        why: One sentence.
        ratio: Rate of `setting` over that of `base`, with its 95 % interval; None where no pairs were measured.
        pairs: Pairs of segments behind the ratio.
        segments: Every segment.
        left_out: What was not tried, or no further, and why, one line each.
    """

    base: Setting
    setting: Setting
    outcome: OnlineOutcome | Literal["trying"] = "trying"
    why: str = "settings are still tried"
    ratio: Interval | None = None
    pairs: int = Field(default=0, ge=0)
    segments: tuple[TriedSegment, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def switching_s(self) -> float:
        """Time that changing settings took, over all segments."""
        return math.fsum(segment.switching_s for segment in self.segments)

    @property
    def tried_s(self) -> float:
        """Time of all segments."""
        return math.fsum(segment.seconds for segment in self.segments)

    def decision(self) -> str:
        """Write the decision on one line."""
        told = f"{_SAID[self.outcome]}: {self.setting.label()} ({self.why})"
        if not self.segments:
            return told
        count = f"{len(self.segments)} segment{'s' if len(self.segments) > 1 else ''}"
        taken = f"{format_seconds(self.switching_s)} of {format_seconds(self.tried_s)}"
        return f"{told}; {count}, changing settings took {taken}"

    def __str__(self) -> str:
        return "\n".join([*(str(segment) for segment in self.segments), *self.left_out, self.decision()])


__all__ = ["OnlineReport", "TriedSegment"]
