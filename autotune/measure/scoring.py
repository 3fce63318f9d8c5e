"""From stretches of batches to the score: steady rate, ramp, and the rate over a full epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotune.constants import WINDOW_MIN_BATCHES
from autotune.measure.window import epoch_rate, rate_interval
from autotune.spec import Window


@dataclass(kw_only=True)
class Stretch:
    """Batches between two moments.

    Attributes:
        seconds: Wall time, consumer included.
        samples: Samples.
        batches: Batches.
        wait_s: Part of `seconds` spent waiting for the loader.
    """

    seconds: float = 0.0
    samples: int = 0
    batches: int = 0
    wait_s: float = 0.0

    def add(self, other: Stretch) -> None:
        """Append a stretch, its seconds excluded: those are read at the edges."""
        self.samples += other.samples
        self.batches += other.batches
        self.wait_s += other.wait_s


def excess_s(ramp: Stretch, steady_samples_per_s: float) -> float:
    """Give what a ramp took beyond the time that its samples take in the steady state; below 0 if it was faster."""
    return ramp.seconds - ramp.samples / steady_samples_per_s


def mean_ramp_s(ramps: Sequence[Stretch], steady_samples_per_s: float | None) -> float:
    """Average what passes lost against the steady rate; 0 where nothing was lost or nothing is known."""
    if steady_samples_per_s is None or not ramps:
        return 0.0
    return max(0.0, sum(excess_s(ramp, steady_samples_per_s) for ramp in ramps) / len(ramps))


def rate_after_ramp(rests: Sequence[Stretch]) -> float | None:
    """Give the rate between ramp and end of whole epochs; None where hardly anything follows the ramp."""
    seconds = sum(rest.seconds for rest in rests)
    batches = sum(rest.batches for rest in rests)
    if seconds <= 0 or batches < WINDOW_MIN_BATCHES * len(rests):
        return None
    return sum(rest.samples for rest in rests) / seconds


def score(
    windows: Sequence[Window], *, steady_samples_per_s: float | None, ramp_s: float, epoch_samples: int | None
) -> float:
    """Give the rate of a full epoch.

    Args:
        windows: Windows that count.
        steady_samples_per_s: Rate without ramp; None where it cannot be told apart.
        ramp_s: Seconds that each epoch loses at its start.
        epoch_samples: Samples of a full epoch; None if the windows already hold whole full epochs,
            ramp included, or if its length is unknown.
    """
    if not windows:
        return 0.0
    if epoch_samples is None or steady_samples_per_s is None:
        return rate_interval(windows).mean
    return epoch_rate(epoch_samples, steady_samples_per_s, ramp_s)
