"""`Ledger`: what one study knows already, by canonical configuration."""

from __future__ import annotations

from collections.abc import Iterable

from autotune.spec import Counts, LoaderConfig, TrialRecord
from autotune.study.verdict import Verdict, verdict


class Ledger:
    """Records of the search of one study, on one machine class and one workload.

    Args:
        records: What is known from before.
        horizon_epochs: Epochs that one-off costs are spread over.
    """

    def __init__(self, records: Iterable[TrialRecord] = (), *, horizon_epochs: int | None = None) -> None:
        self._by_config: dict[LoaderConfig, TrialRecord] = {}
        self._horizon_epochs = horizon_epochs
        self._ranked: list[TrialRecord] | None = None  # asked for far more often than records come in
        for record in records:
            self.add(record)

    def add(self, record: TrialRecord) -> None:
        """Take in a record; a newer one of the same configuration replaces the older."""
        self._by_config[record.config] = record
        self._ranked = None

    def get(self, config: LoaderConfig) -> TrialRecord | None:
        """Give the record of a configuration, or None."""
        return self._by_config.get(config)

    def verdict(self, record: TrialRecord) -> Verdict:
        """Give what Optuna is told of a record, the archive's build charged to every trial that reads it."""
        costs_s = self.one_off_s(record.config) if self._horizon_epochs is not None else 0.0
        return verdict(record, horizon_epochs=self._horizon_epochs, one_off_s=costs_s)

    def worth(self, record: TrialRecord) -> float:
        """Give what a record is worth in samples/s; 0 for a failure."""
        return self.verdict(record).value

    def known(self) -> frozenset[LoaderConfig]:
        """Give all configurations that have a record."""
        return frozenset(self._by_config)

    def failures(self) -> list[TrialRecord]:
        """Give the records without a measurement."""
        return [record for record in self._by_config.values() if record.measurement is None]

    def ranked(self) -> list[TrialRecord]:
        """Give the measured records, fastest first."""
        if self._ranked is None:
            measured = [record for record in self._by_config.values() if record.measurement is not None]
            self._ranked = sorted(measured, key=self.worth, reverse=True)
        return list(self._ranked)

    def best(self) -> TrialRecord | None:
        """Give the fastest record, or None."""
        return next(iter(self.ranked()), None)

    def one_off_s(self, config: LoaderConfig) -> float:
        """Give the seconds that a measured configuration costs once, for the whole dataset.

        An archive costs its build, whenever that was, and a cache on disk stays filled for those that come later.
        What was measured on a part of the dataset costs more in proportion to the samples.
        """
        known = self._by_config.get(config)
        if known is None or known.measurement is None:
            return 0.0
        built_s = known.measurement.archive.build_s if known.measurement.archive else 0.0
        filled_s = self._disk_fill_s(config) if config.cache == "disk" else known.measurement.phases.cache_fill_s
        return (built_s + filled_s) * _whole_over_measured(known)

    def counts(self) -> Counts:
        """Count the records by what became of them."""
        records = self._by_config.values()
        futile = sum(1 for r in records if r.measurement is not None and r.measurement.stopped == "futility")
        measured = sum(1 for r in records if r.measurement is not None)
        infeasible = sum(1 for r in records if r.failure is not None and r.failure.infeasible)
        return Counts(
            complete=measured - futile,
            stopped_early=futile,
            infeasible=infeasible,
            failed=len(self._by_config) - measured - infeasible,
        )

    def _disk_fill_s(self, config: LoaderConfig) -> float:
        """Give the seconds that filling a share of the disk cache takes; each sample was put there only once."""
        cached = [record for record in self._by_config.values() if record.config.cache == "disk" and record.measurement]
        spent_s = sum(record.measurement.phases.cache_fill_s for record in cached if record.measurement)
        return spent_s * (config.cache_fraction or 1.0) / max(record.config.cache_fraction or 1.0 for record in cached)


def _whole_over_measured(record: TrialRecord) -> float:
    """Give how many times the samples that were measured on make the whole dataset."""
    length = record.dataset.length if record.dataset is not None else None
    subset = record.workload.subset
    return max(1.0, length / subset) if length and subset else 1.0
