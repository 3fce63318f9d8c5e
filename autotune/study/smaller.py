"""The smallest machine that keeps a consumer fed: predicted from CPU time, verified by runs with fewer CPUs."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from autotune.constants import (
    DATA_WAIT_TARGET_SHARE,
    SMALLER_BUSY_SHARE,
    SMALLER_LOSS_SHARE,
    SMALLER_RUNS_MAX,
)
from autotune.spec import LoaderConfig, Measurement, SmallerMachine, TrialRecord
from autotune.study.choose import cost
from autotune.study.runs import Order, Runs


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one configuration takes, by its runs with all CPUs.

    Attributes:
        config: The configuration.
        busy_cpus: CPUs that it kept busy.
        rates: Its mean rate in samples/s on each machine.
        samples_per_s: Its mean rate.
        data_wait_share: Mean share of its time that the consumer waited.
        wall_s: Mean wall time of a run.
        order: What it costs in bytes, to be compared.
        measured: One of the measurements, for its bytes.
    """

    config: LoaderConfig
    busy_cpus: float
    rates: Mapping[str, float]
    samples_per_s: float
    data_wait_share: float
    wall_s: float
    order: tuple[int, int, str]
    measured: Measurement


def needs_of(records: Iterable[TrialRecord], batch_size: int) -> list[Need]:
    """Put together what each configuration of a batch size took in runs with all CPUs, where its CPU time is known."""
    by_config: dict[LoaderConfig, dict[str, TrialRecord]] = {}
    for record in records:
        measured = record.measurement
        whole = record.phase != "smaller" and record.config.batch_size == batch_size
        if whole and measured is not None and measured.busy_cpus is not None and measured.stopped != "futility":
            by_config.setdefault(record.config, {})[record.key] = record
    return [_need(config, list(found.values())) for config, found in by_config.items()]


def feeding(needs: Sequence[Need]) -> list[Need]:
    """Give those that keep the consumer fed, and hardly slow it down beside the fastest of the same machine."""
    hosts = {host for need in needs for host in need.rates}
    fastest = {host: max(need.rates.get(host, 0.0) for need in needs) for host in hosts}

    def is_fast(need: Need) -> bool:
        return fmean(rate / fastest[host] for host, rate in need.rates.items()) >= 1 - SMALLER_LOSS_SHARE

    return [need for need in needs if need.data_wait_share <= DATA_WAIT_TARGET_SHARE and is_fast(need)]


def tries(fed: Sequence[Need], of_cpus: int) -> Iterator[tuple[int, Need]]:
    """Give the numbers of CPUs below all of them that can do by the CPU time that is needed, fewest first.

    With each comes the configuration with the fewest bytes among those that leave CPUs idle now and then, and then the
    one that needs least CPU time, before more CPUs are tried. A consumer that waits as long as it may needs that much
    less.
    """
    for cpus in range(1, of_cpus):
        possible = [need for need in fed if need.busy_cpus * (1 - DATA_WAIT_TARGET_SHARE) <= cpus]
        if not possible:
            continue
        least_busy = min(possible, key=lambda need: (need.busy_cpus, need.order))
        smallest = min((need for need in possible if is_ample(cpus, need)), key=_order, default=least_busy)
        yield cpus, smallest
        if least_busy is not smallest:
            yield cpus, least_busy


def is_ample(cpus: int, need: Need) -> bool:
    """Tell whether so many CPUs are predicted to do: they would not all be busy all the time."""
    return need.busy_cpus <= SMALLER_BUSY_SHARE * cpus


def does(measured: Measurement, usual_rate: float) -> bool:
    """Tell whether a run with fewer CPUs kept the consumer fed, and hardly slowed it down beside all CPUs.

    Args:
        measured: The run.
        usual_rate: Rate with all CPUs of the same machine, in samples/s.
    """
    fast = measured.samples_per_s >= (1 - SMALLER_LOSS_SHARE) * usual_rate
    return fast and measured.data_wait_share <= DATA_WAIT_TARGET_SHARE


class SmallerSearch:
    """The fewest CPUs, and then bytes, that keep the consumer of a study fed at a batch size.

    Args:
        runs: Measures, keeps and tells.
        batch_size: The batch size that was decided, or will likely be.

    Attributes:
        found: The answer by all runs until now; None where only loading was measured, or nothing whose CPU time is
            known.
    """

    def __init__(self, runs: Runs, batch_size: int) -> None:
        self._runs = runs
        self._of_cpus = runs.setting.inspection.machine.cpu_count
        told = runs.setting.spec.consumer.kind != "loader"
        needs = needs_of([*runs.ledger.ranked(), *runs.records] if told else [], batch_size)
        self._fed = feeding(needs)
        self._left = deque(tries(self._fed, self._of_cpus))
        self._refuted: dict[int, tuple[LoaderConfig, float]] = {}
        self.found: SmallerMachine | None = self._by_cpu_time() if self._fed else _unfed(needs, self._of_cpus)

    def first(self) -> Order | None:
        """Give the run that `run` begins with, for a machine that would wait; None without one."""
        if not self._left:
            return None
        cpus, need = self._left[0]
        return Order("smaller", [need.config], cpus)

    def run(self) -> None:
        """Run with fewer CPUs, from the fewest that can do upwards; what there is no time to run stays predicted."""
        if self._left:
            self._runs.begin("smaller", f"whether fewer than the {self._of_cpus} CPUs here keep the consumer fed")
        for place in range(min(SMALLER_RUNS_MAX, len(self._left))):
            cpus, need = self._left[0]
            if place and not self._is_affordable(need):
                return
            record = self._known(need.config, cpus) or self._runs.run(need.config, "smaller", cpus=cpus)
            measured = record.measurement
            if measured is None or record.machine is None or record.machine.cpu_count != cpus:
                return
            usual_rate = need.rates.get(record.machine.host)
            if usual_rate is None:  # it never ran with all CPUs there, and machines differ: nothing is shown
                return
            if does(measured, usual_rate):
                self.found = self._tell(
                    need, cpus, state="verified", limited_by=_limit(record, cpus), measured=measured
                )
                return
            self._left.popleft()
            self._refuted[cpus] = (need.config, measured.data_wait_share)
            self.found = self._by_cpu_time()

    def _known(self, config: LoaderConfig, cpus: int) -> TrialRecord | None:
        """Give the run of a machine that would have waited for others while they confirmed; None without one.

        One that could not be limited saw all CPUs.
        """
        ran = [record for record in self._runs.records if record.phase == "smaller" and record.config == config]
        seen = (cpus, self._of_cpus)
        return next((record for record in ran if record.machine and record.machine.cpu_count in seen), None)

    def _is_affordable(self, need: Need) -> bool:
        return self._runs.elapsed_s + need.wall_s <= self._runs.setting.spec.budget.time_s

    def _by_cpu_time(self) -> SmallerMachine:
        """Give what CPU time predicts of what was not run; that all CPUs are needed can also have been shown."""
        found = ((cpus, need) for cpus, need in self._left if is_ample(cpus, need))
        cpus, need = next(found, (self._of_cpus, min(self._fed, key=_order)))
        shown = not self._left and (bool(self._refuted) or self._of_cpus == 1)
        return self._tell(need, cpus, state="verified" if shown else "predicted")

    def _tell(self, need: Need, cpus: int, **fields: Any) -> SmallerMachine:
        too_few = max((count for count in self._refuted if count < cpus), default=None)
        if too_few is not None:
            config, wait_share = self._refuted[too_few]
            fields |= {"too_few": too_few, "too_few_config": config, "too_few_wait_share": wait_share}
        return _told(need, cpus, of_cpus=self._of_cpus, **fields)


def _unfed(needs: Sequence[Need], of_cpus: int) -> SmallerMachine | None:
    """Say of a consumer that waits with all CPUs how long it does at least."""
    if not needs:
        return None
    least = min(needs, key=lambda need: need.data_wait_share)
    return _told(least, of_cpus, of_cpus=of_cpus, fed=False, state="verified")


def _told(need: Need, cpus: int, *, measured: Measurement | None = None, **fields: Any) -> SmallerMachine:
    """Write the answer, with the figures of the run that verified it, else those of all CPUs."""
    source = measured or need.measured
    return SmallerMachine(
        cpus=cpus,
        config=need.config,
        busy_cpus=need.busy_cpus,
        samples_per_s=need.samples_per_s if measured is None else measured.samples_per_s,
        data_wait_share=need.data_wait_share if measured is None else measured.data_wait_share,
        target_share=DATA_WAIT_TARGET_SHARE,
        host_bytes=source.memory.host_pss_bytes,
        archive_bytes=source.archive.size_bytes if source.archive else 0,
        cache_bytes=source.cache.size_bytes if source.cache else 0,
        **fields,
    )


def _order(need: Need) -> tuple[int, int, str]:
    return need.order


def _need(config: LoaderConfig, records: list[TrialRecord]) -> Need:
    measured = [record.measurement for record in records if record.measurement]
    return Need(
        config=config,
        busy_cpus=fmean(one.busy_cpus or 0.0 for one in measured),
        rates=_by_host(records),
        samples_per_s=fmean(one.samples_per_s for one in measured),
        data_wait_share=fmean(one.data_wait_share for one in measured),
        wall_s=fmean(record.wall_s for record in records),
        order=cost(config, records)[1:],
        measured=max(measured, key=lambda one: one.memory.host_pss_bytes or 0),
    )


def _by_host(records: Iterable[TrialRecord]) -> dict[str, float]:
    rates: dict[str, list[float]] = {}
    for record in records:
        if record.measurement is not None:
            rates.setdefault(record.machine.host if record.machine else "", []).append(record.measurement.samples_per_s)
    return {host: fmean(found) for host, found in rates.items()}


def _limit(record: TrialRecord, cpus: int) -> str:
    """Tell what kept a run to its CPUs, by what its process saw of the machine."""
    inputs = record.machine.cpu_inputs if record.machine else {}
    return "quota" if math.isclose(inputs.get("cgroup_quota", math.inf), cpus) else "affinity"
