"""The confirm phase: fresh interleaved runs of the winner against what it would replace."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from statistics import fmean

from autotune.constants import CHALLENGERS_MAX, CONFIRM_PAIRS_MAX, CONFIRM_PAIRS_MIN, PROCESS_RUNS_MAX
from autotune.space.priors import REFERENCE_BATCH_SIZE
from autotune.spec import Interval, LoaderConfig, TrialRecord
from autotune.study.pairs import Blocks
from autotune.study.race import disqualifies
from autotune.study.runs import Order, Runs
from autotune.study.smaller import SmallerSearch


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What the interleaved runs showed.

    Attributes:
        challenger: The choice.
        default: PyTorch's default at the same batch size.
        deployed: What is deployed and differs from both; None without.
        blocks: The runs.
        batch_size_gain: Challenger at its batch size over itself at the reference batch size of 32.
        host: The machine that the decision names; others of its class may have measured too.
    """

    challenger: LoaderConfig
    default: LoaderConfig
    deployed: LoaderConfig | None
    blocks: Blocks
    batch_size_gain: float | None
    host: str

    def ratio(self, config: LoaderConfig) -> Interval | None:
        """Give the ratio of a configuration over the default."""
        return self.between(config, self.default)

    def between(self, above: LoaderConfig, below: LoaderConfig) -> Interval | None:
        """Give the ratio of two configurations; None with too few pairs to publish one."""
        enough = len(self.blocks.paired_rates(above, below)) >= CONFIRM_PAIRS_MIN
        return self.blocks.ratio(above, below) if enough else None

    def measured(self) -> list[LoaderConfig]:
        """Give the configurations of which at least one run was measured."""
        return [config for config in self.blocks.configs if self.blocks.rates(config)]

    def rate(self, config: LoaderConfig) -> float | None:
        """Give the mean rate of a configuration on the machine that is named, on all where it measured none.

        None where it was never measured.
        """
        rates = self.blocks.rates(config, host=self.host) or self.blocks.rates(config)
        return fmean(rates) if rates else None

    def rate_on(self, config: LoaderConfig, host: str | None) -> float | None:
        """Give the mean rate of a configuration on one machine, or None where it was never measured there."""
        rates = self.blocks.rates(config, host=host)
        return fmean(rates) if rates else None


class Confirm:
    """Runs the confirm phase of one study.

    Args:
        runs: Measures, keeps and tells.
        kept_s: Seconds of the budget that are kept for what comes after.
    """

    def __init__(self, runs: Runs, *, kept_s: float = 0.0) -> None:
        self.runs = runs
        self._kept_s = kept_s
        self.setting = runs.setting
        self.ledger = runs.ledger
        self._verified: dict[LoaderConfig, bool] = {}

    def run(self, candidates: Sequence[LoaderConfig], deployed: LoaderConfig | None) -> Confirmed | None:
        """Confirm the first candidate that keeps its limits; None where there is none to confirm.

        A candidate is verified first: with the largest sample and an evaluation pass. Where it or its default breaks a
        limit, it comes last again with the next smaller batch. The number of blocks is fixed before the first one, from
        the time that is left: an interval that is looked at after each block, to stop when it suits, is too narrow.
        """
        rivals = [config for config in dict.fromkeys(candidates) if config != self._default(config)]
        for _ in range(CHALLENGERS_MAX):
            if not rivals:
                return None
            challenger = rivals.pop(0)
            default = self._default(challenger)
            old = deployed if deployed not in (challenger, default) else None
            blocks = self._compared(challenger, default, old)
            if blocks is not None:
                return Confirmed(
                    challenger=challenger,
                    default=default,
                    deployed=old if old and blocks.rates(old) else None,
                    blocks=blocks,
                    batch_size_gain=self._batch_size_gain(blocks, challenger),
                    host=self.setting.inspection.machine.host,
                )
            rivals += self._smaller(challenger, rivals)
        return None

    def safe_default(self) -> LoaderConfig | None:
        """Give PyTorch's default at the fastest batch size at which it keeps its limits; None where it never does.

        It is what is handed out where nothing could be confirmed, and nothing is handed out unverified.
        """
        defaults = dict.fromkeys(self._default(record.config) for record in self.ledger.ranked())
        return next((config for config in defaults if self._keeps_limits(config)), None)

    def kept(self) -> LoaderConfig | None:
        """Give the fastest of those that were tried apart from the defaults and kept their limits; None without one."""
        ranked = [record.config for record in self.ledger.ranked()]
        return next((one for one in ranked if self._verified.get(one) and one != self._default(one)), None)

    def _smaller(self, config: LoaderConfig, waiting: Sequence[LoaderConfig]) -> list[LoaderConfig]:
        """Give a configuration with the next smaller batch, where there is one that is not tried anyway."""
        sizes = [size for size in self.setting.space.dimensions.batch_size if size < config.batch_size]
        smaller = config.replace(batch_size=max(sizes)) if sizes else config
        fresh = smaller in self.setting.space.points and smaller not in waiting and smaller not in self._verified
        return [smaller] if fresh and smaller != self._default(smaller) else []

    def _keeps_limits(self, config: LoaderConfig) -> bool:
        if config not in self._verified:
            self._judge([self.runs.run(config, "verify")])
        return self._verified[config]

    def _judge(self, records: Iterable[TrialRecord]) -> None:
        """Note which configurations kept all limits when they were verified, and which broke one at any time."""
        for record in records:
            if disqualifies(record):
                self._verified[record.config] = False
                self.ledger.add(record)
            elif record.phase == "verify":
                self._verified[record.config] = True

    def _default(self, config: LoaderConfig) -> LoaderConfig:
        machine = self.setting.inspection.machine
        return LoaderConfig.torch_default(config.batch_size).canonical(has_accelerator=machine.has_accelerator)

    def _compared(self, challenger: LoaderConfig, default: LoaderConfig, old: LoaderConfig | None) -> Blocks | None:
        """Verify challenger and default, and run all in blocks; None where one of the two broke a limit.

        Machines that would wait while others verify begin with the blocks.
        """
        both = (challenger, default)
        blocks, missing = Blocks([]), 0

        def orders() -> Iterator[Order]:
            nonlocal blocks, missing
            for config in both:
                if config not in self._verified:
                    yield Order("verify", [config])
            blocks, missing = self._planned(challenger, default, old)
            for number in range(missing):
                yield Order("confirm", blocks.order(number))
            yield from self._beside(challenger)

        if self._is_broken(*both):
            return None
        with closing(self.runs.blocks(orders(), ratio=lambda: blocks.ratio(*both))) as measured:
            for records in measured:
                if records[0].phase == "confirm":
                    blocks.add({record.config: record for record in records})
                    missing -= 1
                self._judge(record for record in records if record.config in both)
                if self._is_broken(*both):
                    return None
                if records[0].phase == "confirm" and not missing:
                    break  # whatever becomes of the run with fewer CPUs, this is confirmed
        return blocks

    def _beside(self, challenger: LoaderConfig) -> Iterator[Order]:
        """Give what a machine that would wait for the last blocks does: what follows if the challenger is chosen."""
        following = SmallerSearch(self.runs, challenger.batch_size).first()
        if following and self.runs.capacity > 1:
            yield following

    def _is_broken(self, *configs: LoaderConfig) -> bool:
        return not all(self._verified.get(config, True) for config in configs)

    def _planned(self, challenger: LoaderConfig, default: LoaderConfig, old: LoaderConfig | None) -> tuple[Blocks, int]:
        """Give the blocks to run, and how many."""
        rivals = [challenger, default, *([old] if old else [])]
        reference = challenger.replace(batch_size=REFERENCE_BATCH_SIZE)
        if reference != challenger and self._affordable([*rivals, reference]) > CONFIRM_PAIRS_MIN:
            rivals = [*rivals, reference]
        return Blocks(rivals), self._affordable(rivals)

    def _affordable(self, rivals: Sequence[LoaderConfig]) -> int:
        """Give how many blocks the rest of the budget pays for, as far as they are wanted and processes are left.

        Args:
            rivals: What runs in a block: challenger, default, and what else.
        """
        setting = self.setting
        left_s = setting.spec.budget.time_s - self.runs.elapsed_s - self._kept_s
        longer_s = max(0.0, setting.time_cap_s("confirm") - setting.time_cap_s("search"))
        walls = [record.wall_s for record in self.ledger.ranked()]
        typical_s = (fmean(walls) if walls else setting.time_cap_s("confirm")) + longer_s
        block_s = sum(self._expected_s(config, typical_s, longer_s) for config in rivals)
        machines = self.runs.capacity
        wanted = math.ceil(CONFIRM_PAIRS_MAX / machines) * machines  # a machine that would wait for others measures too
        paid = int(left_s / block_s) * machines if block_s else wanted
        verifying = sum(config not in self._verified for config in rivals[:2])
        allowed = (PROCESS_RUNS_MAX - self.runs.processes - verifying) // len(rivals)
        return max(CONFIRM_PAIRS_MIN, min(wanted, paid, allowed))

    def _expected_s(self, config: LoaderConfig, typical_s: float, longer_s: float) -> float:
        known = self.ledger.get(config)
        if known is None or known.measurement is None:
            return typical_s
        # an archive that had to be built then is there now
        return known.wall_s - known.measurement.phases.archive_build_s + longer_s

    def _batch_size_gain(self, blocks: Blocks, challenger: LoaderConfig) -> float | None:
        reference = challenger.replace(batch_size=REFERENCE_BATCH_SIZE)
        if reference == challenger or reference not in blocks.configs:
            return None
        ratio = blocks.ratio(challenger, reference)
        return ratio.mean if ratio else None
