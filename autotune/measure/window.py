"""What windows say together: rate and interval, whether it is precise, steady, or not worth going on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import stdtrit

from autotune.constants import (
    CONFIDENCE,
    FUTILITY_SHARE,
    FUTILITY_WINDOWS,
    PRECISION_SHARE,
    UNSTEADY_SHARE,
    WINDOWS_MIN,
)
from autotune.spec import Interval, Window

_HALVES_FROM = 4
"""Windows from which halves are compared: with fewer, a half is one window, and noise looks like drift."""


def counted(windows: Sequence[Window]) -> list[Window]:
    """Give the windows that were not set aside."""
    return [window for window in windows if not window.set_aside]


def rate_interval(windows: Sequence[Window], confidence: float = CONFIDENCE) -> Interval:
    """Estimate the rate in samples/s with its interval from windows of any length.

    The rate is all samples over all seconds. Its spread is that of the ratio estimator over
    batch means (Cochran, *Sampling Techniques*, 3rd ed., 2.11), with Student's t at n - 1 degrees.
    One window has no spread: its interval reaches from 0 to twice the mean, and is never precise.

    Raises:
        ValueError: There is no window.
    """
    if not windows:
        raise ValueError("a rate needs at least one window, got none")
    seconds = math.fsum(window.seconds for window in windows)
    rate = sum(window.samples for window in windows) / seconds
    count = len(windows)
    if count == 1:
        return Interval(mean=rate, low=0.0, high=2 * rate)
    squares = math.fsum((window.samples - rate * window.seconds) ** 2 for window in windows)
    error = math.sqrt(squares / (count - 1) / count) / (seconds / count)
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * error
    return Interval(mean=rate, low=rate - half, high=rate + half)


def is_precise(windows: Sequence[Window]) -> bool:
    """Tell whether the interval is narrow enough that more windows buy nothing."""
    return len(windows) >= WINDOWS_MIN and rate_interval(windows).half_width_share <= PRECISION_SHARE


def is_futile(windows: Sequence[Window], incumbent_samples_per_s: float | None) -> bool:
    """Tell whether even the upper end of the interval is far under the incumbent."""
    if incumbent_samples_per_s is None or len(windows) < FUTILITY_WINDOWS:
        return False
    return rate_interval(windows).high < FUTILITY_SHARE * incumbent_samples_per_s


def is_unsteady(windows: Sequence[Window]) -> bool:
    """Tell whether the rates of the first and the second half differ by more than a steady run's would."""
    if len(windows) < _HALVES_FROM:
        return False
    half = len(windows) // 2
    first, second = rate_interval(windows[:half]).mean, rate_interval(windows[-half:]).mean
    return abs(second - first) > UNSTEADY_SHARE * (first + second) / 2


def epoch_rate(epoch_samples: int, steady_samples_per_s: float, ramp_s: float) -> float:
    """Give the rate over a full epoch: `N / (N / steady + ramp)`."""
    return epoch_samples / (epoch_samples / steady_samples_per_s + ramp_s)
