"""The confirm phase: fresh interleaved runs of the winner against what it would replace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from autotune.constants import CONFIRM_PAIRS_MAX, CONFIRM_PAIRS_MIN
from autotune.space.priors import REFERENCE_BATCH_SIZE
from autotune.spec import Interval, LoaderConfig, TrialFinished, TrialRecord
from autotune.study.ledger import Ledger
from autotune.study.pairs import Blocks
from autotune.study.setting import Setting

CHALLENGERS_MAX = 3
"""Winners of the search that may fail in the confirm phase before it is given up."""


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What the interleaved runs showed.

    Attributes:
        challenger: The winner of the search.
        default: PyTorch's default at the same batch size.
        deployed: What is deployed and differs from both; None without.
        blocks: The runs.
        batch_size_gain: Challenger at its batch size over itself at the reference batch size of 32.
    """

    challenger: LoaderConfig
    default: LoaderConfig
    deployed: LoaderConfig | None
    blocks: Blocks
    batch_size_gain: float | None

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
        """Give the mean rate of a configuration, or None where it was never measured."""
        rates = self.blocks.rates(config)
        return fmean(rates) if rates else None


class Confirm:
    """Runs the confirm phase of one study.

    Args:
        setting: The run.
        ledger: What the search found.
        started: Clock reading at which the run began.
    """

    def __init__(self, setting: Setting, ledger: Ledger, started: float) -> None:
        self.setting = setting
        self.ledger = ledger
        self.runs: list[TrialRecord] = []
        self._started = started

    def run(self, deployed: LoaderConfig | None) -> Confirmed | None:
        """Confirm the fastest configuration of which every run survives; None where there is none to confirm.

        The number of blocks is fixed before the first one, from the time that is left: an interval that is
        looked at after each block, to stop when it suits, is too narrow.
        """
        for challenger in self._challengers():
            default = self._default(challenger.config)
            rivals = [challenger.config, default]
            old = deployed if deployed is not None and deployed not in rivals else None
            rivals += [old] if old else []
            blocks = self._blocks(challenger.config, default, rivals)
            failed = next((run for run in blocks.records(challenger.config) if run.measurement is None), None)
            if failed is None:
                return Confirmed(
                    challenger=challenger.config,
                    default=default,
                    deployed=old if old and blocks.rates(old) else None,
                    blocks=blocks,
                    batch_size_gain=self._batch_size_gain(blocks, challenger.config),
                )
            self.ledger.add(failed)
        return None

    def _challengers(self) -> Sequence[TrialRecord]:
        ranked = self.ledger.ranked()
        rivals = [record for record in ranked if record.config != self._default(record.config)]
        return rivals[:CHALLENGERS_MAX]

    def _default(self, config: LoaderConfig) -> LoaderConfig:
        machine = self.setting.inspection.machine
        return LoaderConfig.torch_default(config.batch_size).canonical(has_accelerator=machine.has_accelerator)

    def _blocks(self, challenger: LoaderConfig, default: LoaderConfig, rivals: list[LoaderConfig]) -> Blocks:
        reference = challenger.replace(batch_size=REFERENCE_BATCH_SIZE)
        count = self._affordable(rivals)
        if challenger.batch_size != REFERENCE_BATCH_SIZE and self._affordable([*rivals, reference]) > CONFIRM_PAIRS_MIN:
            rivals = [*rivals, reference]
            count = self._affordable(rivals)
        blocks = Blocks(rivals, self._runner(challenger, default, lambda: blocks))
        for _ in range(count):
            block = blocks.add()
            if block[challenger].measurement is None:
                break
        return blocks

    def _affordable(self, rivals: Sequence[LoaderConfig]) -> int:
        """Give how many blocks the rest of the budget pays for, within the allowed range."""
        spec = self.setting.spec
        left = spec.budget.time_s - (self.setting.clock() - self._started)
        longer = spec.confirm_time_cap_s - spec.time_cap_s
        walls = [record.wall_s for record in self.ledger.ranked()]
        typical = (fmean(walls) if walls else spec.confirm_time_cap_s) + max(longer, 0.0)
        block_s = sum(self._expected_s(config, typical, longer) for config in rivals)
        return max(CONFIRM_PAIRS_MIN, min(CONFIRM_PAIRS_MAX, int(left / block_s)))

    def _expected_s(self, config: LoaderConfig, typical_s: float, longer_s: float) -> float:
        known = self.ledger.get(config)
        if known is None or known.measurement is None:
            return typical_s
        # an archive that had to be built then is there now
        return known.wall_s - known.measurement.phases.archive_build_s + max(longer_s, 0.0)

    def _runner(
        self, challenger: LoaderConfig, default: LoaderConfig, blocks: Callable[[], Blocks]
    ) -> Callable[[LoaderConfig], TrialRecord]:
        setting = self.setting

        def run(config: LoaderConfig) -> TrialRecord:
            record = setting.runner.run(setting.request(config, phase="confirm"))
            setting.store.save_record(record)
            self.runs.append(record)
            event = TrialFinished(
                run_key=setting.run_key,
                phase="confirm",
                record=record,
                best=self.ledger.get(challenger),
                counts=self.ledger.counts(),
                elapsed_s=setting.clock() - self._started,
                budget_s=setting.spec.budget.time_s,
                ratio=blocks().ratio(challenger, default),
            )
            setting.notify("on_trial", event)
            return record

        return run

    def _batch_size_gain(self, blocks: Blocks, challenger: LoaderConfig) -> float | None:
        reference = challenger.replace(batch_size=REFERENCE_BATCH_SIZE)
        if reference == challenger or reference not in blocks.configs:
            return None
        ratio = blocks.ratio(challenger, reference)
        return ratio.mean if ratio else None
