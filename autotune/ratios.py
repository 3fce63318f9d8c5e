"""Ratios of paired rates with their interval: the figures that decide, in studies and while training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from scipy.special import stdtrit

from autotune.constants import CONFIDENCE
from autotune.spec import Interval


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], *, confidence: float = CONFIDENCE
) -> Interval | None:
    """Give the ratio of paired rates with its interval; None with fewer than two pairs.

    The mean is that of the log ratios, so that a over b and b over a are reciprocal, and the interval is
    Student's, as pairs are few. The unit of repetition is that of the pairs: a process in a study, a segment of an
    epoch while training.

    Args:
        numerators: Rates of one configuration.
        denominators: Rates of the other, in the same order.
        confidence: Level of the two-sided interval.
    """
    logs = [math.log(above / below) for above, below in zip(numerators, denominators, strict=True)]
    if len(logs) < 2:
        return None
    mean = fmean(logs)
    half = float(stdtrit(len(logs) - 1, (1 + confidence) / 2)) * stdev(logs) / math.sqrt(len(logs))
    return Interval(mean=math.exp(mean), low=math.exp(mean - half), high=math.exp(mean + half))


def pairs_to_resolve(ratio: float, *, noise: float, fewest: int, most: int) -> int:
    """Give the pairs whose 95 % interval is expected to be half as wide, on either side, as a ratio is away from 1.

    Args:
        ratio: The ratio that was seen once, and so flatters itself.
        noise: Standard deviation of a log rate from run to run.
        fewest: Fewest pairs.
        most: Most pairs, which is also the answer where that many do not do.
    """
    wanted = abs(math.log(ratio)) / 2
    for pairs in range(fewest, most):
        if float(stdtrit(pairs - 1, (1 + CONFIDENCE) / 2)) * noise * math.sqrt(2 / pairs) <= wanted:
            return pairs
    return most


__all__ = ["pairs_to_resolve", "ratio_interval"]
