"""What a short study tried, one row a configuration."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from scipy.special import stdtrit

from autotune.constants import CONFIDENCE
from autotune.spec import Interval, LoaderConfig, TrialRecord
from autotune.spec.base import Value


class TableRow(Value):
    """One configuration of a short study.

    Attributes:
        configuration: The configuration.
        samples_per_s: Mean rate of its runs with the 95 % interval: over runs where there are several, else over the
            windows of the one; None where none was measured.
        runs: Runs that were measured.
        data_wait_share: Share of the time spent waiting for data, on average.
        failure: Why it was not measured; None where it was.
    """

    configuration: LoaderConfig
    samples_per_s: Interval | None = None
    runs: int = 0
    data_wait_share: float | None = None
    failure: str | None = None

    @property
    def label(self) -> str:
        """The configuration on one line."""
        return self.configuration.label()


def tabulate(records: Iterable[TrialRecord]) -> tuple[TableRow, ...]:
    """Put the runs of each configuration together, fastest first, those that failed last; probes are left out."""
    runs: dict[LoaderConfig, list[TrialRecord]] = {}
    for record in records:
        if record.phase != "probe":
            runs.setdefault(record.config, []).append(record)
    rows = [_row(config, found) for config, found in runs.items()]
    return tuple(sorted(rows, key=lambda row: -row.samples_per_s.mean if row.samples_per_s else math.inf))


def _row(config: LoaderConfig, records: Sequence[TrialRecord]) -> TableRow:
    measured = [record.measurement for record in records if record.measurement is not None]
    if not measured:
        messages = [record.failure.message for record in records if record.failure is not None]
        return TableRow(configuration=config, failure=messages[-1] if messages else "it was not measured")
    rates = [found.samples_per_s for found in measured]
    steady = measured[0].steady
    interval = _interval(rates) if len(rates) > 1 else _scaled(steady, rates[0])
    return TableRow(
        configuration=config,
        samples_per_s=interval,
        runs=len(rates),
        data_wait_share=statistics.fmean(found.data_wait_share for found in measured),
    )


def _interval(rates: Sequence[float]) -> Interval:
    """Give the mean of runs with Student's interval."""
    mean = statistics.fmean(rates)
    error = statistics.stdev(rates) / math.sqrt(len(rates))
    half = float(stdtrit(len(rates) - 1, (1 + CONFIDENCE) / 2)) * error
    return Interval(mean=mean, low=max(0.0, mean - half), high=mean + half)


def _scaled(steady: Interval, rate: float) -> Interval:
    """Give the interval of the windows around the rate of the epoch, as wide for its size."""
    factor = rate / steady.mean if steady.mean else 1.0
    return Interval(mean=rate, low=max(0.0, steady.low * factor), high=steady.high * factor)


__all__ = ["TableRow", "tabulate"]
