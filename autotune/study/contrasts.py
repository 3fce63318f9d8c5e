"""What blocks of runs say about differences between configurations: pooled errors, losses, resolution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np
from scipy.special import stdtrit

from autotune.constants import CONFIDENCE
from autotune.spec import LoaderConfig

Logs = Mapping[LoaderConfig, Sequence[float | None]]
"""Log rate of each configuration in each block; None where it did not run or failed."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """How far one configuration lies behind the leader, in log rate.

    Attributes:
        mean: Mean of the paired differences.
        error: Its standard error.
        freedom: Degrees of freedom of the error.
    """

    mean: float
    error: float
    freedom: int

    def lower(self, level: float) -> float:
        """Give the one-sided lower bound of the loss at an error level."""
        return self.mean - _quantile(1 - level, self.freedom) * self.error

    def upper(self, confidence: float) -> float:
        """Give the one-sided upper bound of the loss with a confidence."""
        return self.mean + _quantile(confidence, self.freedom) * self.error


def leader(logs: Logs, among: Sequence[LoaderConfig]) -> LoaderConfig:
    """Give the configuration with the highest median, each block's own level taken off.

    A median is not moved by the one run that a neighbour disturbed. Of equal ones the first is taken.
    """
    levels = _levels(logs, among)
    centred = {
        config: [log - level for log, level in zip(logs[config], levels, strict=True) if log is not None]
        for config in among
    }
    return max(among, key=lambda config: median(centred[config]) if centred[config] else -math.inf)


def loss(logs: Logs, behind: LoaderConfig, ahead: LoaderConfig) -> Loss | None:
    """Compare two configurations over the blocks in which both ran; None with fewer than two of them.

    The spread is pooled over all configurations of the race (two-way layout without interaction: Montgomery,
    *Design and Analysis of Experiments*, ch. 4), as three pairs alone say next to nothing about theirs.
    """
    pairs = zip(logs[ahead], logs[behind], strict=True)
    differences = [one - other for one, other in pairs if one is not None and other is not None]
    if len(differences) < 2:
        return None
    variance, freedom = pooled_variance(logs)
    return Loss(mean=fmean(differences), error=math.sqrt(2 * variance / len(differences)), freedom=freedom)


def pooled_variance(logs: Logs) -> tuple[float, int]:
    """Give the variance of a log rate beside the effects of configuration and block, and its degrees of freedom."""
    cells = [
        (row, block, log)
        for row, config in enumerate(logs)
        for block, log in enumerate(logs[config])
        if log is not None
    ]
    blocks = 1 + max(block for _, block, _ in cells)
    design = np.zeros((len(cells), len(logs) + blocks))
    for number, (row, block, _) in enumerate(cells):
        design[number, row] = design[number, len(logs) + block] = 1.0
    values = np.array([log for *_, log in cells])
    solution, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    freedom = max(1, len(cells) - int(rank))
    return float(np.sum((values - design @ solution) ** 2)) / freedom, freedom


def resolution_share(noise: float, pairs: int) -> float | None:
    """Give the smallest ratio, less 1, that so many pairs tell from none, at a noise of the log rate from run to run.

    It is the half width of the ratio's 95 % interval: a smaller difference cannot be told.
    """
    if pairs < 2:
        return None
    half = _quantile((1 + CONFIDENCE) / 2, pairs - 1) * noise * math.sqrt(2 / pairs)
    return math.exp(half) - 1


def _levels(logs: Logs, among: Sequence[LoaderConfig]) -> list[float]:
    """Give the level of each block: the median of the configurations that are still in."""
    blocks = zip(*(logs[config] for config in among), strict=True)
    found = [[log for log in block if log is not None] for block in blocks]
    return [median(block) if block else 0.0 for block in found]


def _quantile(probability: float, freedom: int) -> float:
    return float(stdtrit(freedom, probability))
