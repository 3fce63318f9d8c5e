"""Ratios from interleaved runs: the only figures that are published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from autotune.ratios import ratio_interval
from autotune.spec import Interval, LoaderConfig, TrialRecord

Run = Callable[[LoaderConfig], TrialRecord]


class Blocks:
    """Blocks in which every configuration runs once, in alternating order.

    Args:
        configs: The rivals, at least two.
    """

    def __init__(self, configs: Sequence[LoaderConfig]) -> None:
        self.configs = list(configs)
        self._blocks: list[dict[LoaderConfig, TrialRecord]] = []

    def order(self, number: int) -> list[LoaderConfig]:
        """Give the order within a block; every second one runs backwards, so that a drift hits both alike."""
        return self.configs if number % 2 == 0 else self.configs[::-1]

    def add(self, block: Mapping[LoaderConfig, TrialRecord]) -> None:
        """Take in the runs of one block."""
        self._blocks.append(dict(block))

    def measure(self, run: Run) -> dict[LoaderConfig, TrialRecord]:
        """Run one more block here and now, each configuration in a fresh process."""
        block = {config: run(config) for config in self.order(len(self._blocks))}
        self.add(block)
        return block

    def records(self, config: LoaderConfig) -> list[TrialRecord]:
        """Give all runs of a configuration."""
        return [block[config] for block in self._blocks]

    def rates(self, config: LoaderConfig, *, host: str | None = None) -> list[float]:
        """Give the rates of a configuration's runs that were measured, on one machine or on all."""
        there = [one for one in self.records(config) if host is None or (one.machine and one.machine.host == host)]
        return [record.measurement.samples_per_s for record in there if record.measurement]

    def ratio(self, above: LoaderConfig, below: LoaderConfig) -> Interval | None:
        """Give the ratio of two configurations over the blocks in which both were measured."""
        pairs = self.paired_rates(above, below)
        return ratio_interval([pair[0] for pair in pairs], [pair[1] for pair in pairs])

    def paired_rates(self, above: LoaderConfig, below: LoaderConfig) -> list[tuple[float, float]]:
        """Give the rates of two configurations, one pair for each block in which both were measured."""
        both = [(block[above].measurement, block[below].measurement) for block in self._blocks]
        return [(one.samples_per_s, other.samples_per_s) for one, other in both if one and other]
