"""The race: the best of the search again, side by side in randomised blocks, until the rest is told apart."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from autotune.constants import (
    CONFIRM_PAIRS_MAX,
    EQUIVALENCE_CONFIDENCE,
    EQUIVALENCE_SHARE,
    PROCESS_RUNS_MAX,
    RACE_BLOCKS_MAX,
    RACE_BLOCKS_MIN,
    RACE_DROP_LEVEL,
    RACE_ENTRANTS_MAX,
    RACE_MARGIN_SHARE,
)
from autotune.spec import LoaderConfig, TrialRecord
from autotune.study.contrasts import leader, loss
from autotune.study.ledger import Ledger
from autotune.study.runs import Order, Runs


def storage_tier(config: LoaderConfig) -> str:
    """Name what a configuration needs beside the files: nothing (`files`), an `archive`, a `cache`, or both."""
    archived, cached = config.archive != "files", config.cache != "none"
    if archived and cached:
        return "archive and cache"
    return "archive" if archived else "cache" if cached else "files"


@dataclass
class Raced:
    """What the race came to.

    Attributes:
        logs: Log rate of each entrant in each block; None where it no longer ran, or failed.
        survivors: Entrants that were not told to be slower, the leader first.
        equivalent: Those of them that are shown to be within 2 % of the leader, the leader itself included.
        records: Every run.
        blocks: Blocks that were run.
    """

    logs: dict[LoaderConfig, list[float | None]] = field(default_factory=dict)
    survivors: list[LoaderConfig] = field(default_factory=list)
    equivalent: list[LoaderConfig] = field(default_factory=list)
    records: list[TrialRecord] = field(default_factory=list)
    blocks: int = 0

    def of(self, config: LoaderConfig) -> list[TrialRecord]:
        """Give the runs of an entrant."""
        return [record for record in self.records if record.config == config]


def disqualifies(record: TrialRecord) -> bool:
    """Tell whether a run shows that a configuration must not be handed out.

    A rate that is no rate is a bad reading, which says nothing of the configuration: the block goes without it.
    """
    return record.failure is not None and record.failure.kind != "senseless"


def entrants(ledger: Ledger) -> list[LoaderConfig]:
    """Choose who races: the best of the search, and of each storage tier the best as a fallback."""
    ranked = [record for record in ledger.ranked() if record.measurement and record.measurement.stopped != "futility"]
    if not ranked:
        return []
    best = ledger.verdict(ranked[0]).value
    near = [record.config for record in ranked if ledger.verdict(record).value >= best * (1 - RACE_MARGIN_SHARE)]
    chosen = near[:RACE_ENTRANTS_MAX]
    for record in ranked:
        if storage_tier(record.config) not in {storage_tier(config) for config in chosen}:
            chosen.append(record.config)
    return chosen


class Race:
    """Runs the race of one study.

    Args:
        runs: Measures and keeps; what breaks a limit now is added to its ledger.
        seed: Seed of the order within the blocks.
    """

    def __init__(self, runs: Runs, *, seed: int) -> None:
        self._runs = runs
        self._ledger = runs.ledger
        self._random = random.Random(seed)  # noqa: S311 (no secret)

    def run(self, racing: Sequence[LoaderConfig], *, until_s: float) -> Raced:
        """Race until one is left, all that are left are shown to be equivalent, or blocks or time are over.

        Args:
            racing: The entrants, best first.
            until_s: Clock reading at which no further block begins, once the fewest have been run.
        """
        raced = Raced(logs={config: [] for config in racing}, survivors=list(racing))
        round_s = 0.0
        while raced.blocks < RACE_BLOCKS_MAX and len(raced.survivors) > 1:
            began_s = self._runs.clock()
            blocks = self._round_size(raced)
            if raced.blocks >= RACE_BLOCKS_MIN and (began_s + round_s > until_s or not blocks):
                break
            self._round(raced, blocks)
            round_s = self._runs.clock() - began_s
            if raced.blocks >= RACE_BLOCKS_MIN:
                self._judge(raced)
                if len(raced.equivalent) == len(raced.survivors):
                    break
        return raced

    def _round_size(self, raced: Raced) -> int:
        """Give how many blocks are run at once: one a machine, as far as blocks and processes are left."""
        blocks = min(self._runs.capacity, RACE_BLOCKS_MAX - raced.blocks)
        left = PROCESS_RUNS_MAX - self._runs.processes - 2 * CONFIRM_PAIRS_MAX - 2
        needed = min(blocks, RACE_BLOCKS_MIN - raced.blocks)
        return max(0, needed, min(blocks, left // len(raced.survivors)))

    def rematch(self, racing: Sequence[LoaderConfig]) -> Raced:
        """Run each once more, where the time allows no race, and order them by both runs.

        Args:
            racing: The entrants, best first; their runs in the search count as a block where all are of one machine.
        """
        known = [record for config in racing if (record := self._ledger.get(config))]
        worth = {record.config: math.log(self._ledger.worth(record)) for record in known}
        raced = Raced(logs={config: [] for config in racing}, survivors=list(racing))
        self._round(raced, 1)
        if _of_one_machine([*known, *raced.records]):
            raced.logs = {config: [worth.get(config), *logs] for config, logs in raced.logs.items()}
            raced.blocks += 1
        readings = {config: [log for log in raced.logs[config] if log is not None] for config in raced.survivors}
        if all(readings.values()):  # else nothing was held against each other, and the search's order stays
            raced.survivors.sort(key=lambda config: -fmean(readings[config]))
        raced.equivalent = raced.survivors[:1]
        return raced

    def _round(self, raced: Raced, blocks: int) -> None:
        """Run so many blocks, each on one machine: rates of different machines are never held against each other."""
        orders = [Order("race", self._shuffled(raced.survivors)) for _ in range(blocks)]
        for records in self._runs.blocks(orders):
            self._add(raced, records)

    def _shuffled(self, racing: Sequence[LoaderConfig]) -> list[LoaderConfig]:
        order = list(racing)
        self._random.shuffle(order)
        return order

    def _add(self, raced: Raced, records: Iterable[TrialRecord]) -> None:
        for record in records:
            raced.records.append(record)
            measured = record.measurement
            raced.logs[record.config].append(math.log(self._ledger.worth(record)) if measured else None)
            if disqualifies(record):
                self._ledger.add(record)
                raced.survivors = [config for config in raced.survivors if config != record.config]
        raced.blocks += 1
        for logs in raced.logs.values():
            logs.extend([None] * (raced.blocks - len(logs)))

    def _judge(self, raced: Raced) -> None:
        """Drop who is told to be slower than the leader, and find who is shown to be as fast."""
        if not raced.survivors:
            return
        first = leader(raced.logs, raced.survivors)
        left, equivalent = [first], [first]
        for config in raced.survivors:
            behind = None if config == first else loss(raced.logs, config, first)
            if behind is None or behind.lower(RACE_DROP_LEVEL) > 0:
                continue
            left.append(config)
            if behind.upper(EQUIVALENCE_CONFIDENCE) < math.log1p(EQUIVALENCE_SHARE):
                equivalent.append(config)
        raced.survivors, raced.equivalent = left, equivalent


def _of_one_machine(records: Iterable[TrialRecord]) -> bool:
    return len({record.machine.host for record in records if record.machine is not None}) <= 1
