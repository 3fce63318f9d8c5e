"""Whole studies over recorded landscapes: how the method itself is tested, and compared with others."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from autotune.space import Space
from autotune.spec import (
    Budget,
    DatasetSource,
    Decision,
    LoaderConfig,
    StudySpec,
    StudySummary,
    TrialFinished,
    TrialRecord,
)
from autotune.spec.study import Promotion
from autotune.study.optuna_store import sampler
from autotune.study.run import run_study
from autotune.study.setting import Setting
from autotune.trial import Landscape, MachinePool, ReplayRunner, SinglePool, TrialPool
from autotune.trial.noise import Noise

BUDGET_S = 300.0
"""Budget of a replayed study in seconds of the recording's clock: the full default study of two cores."""
_SPREAD_OF_MACHINES = 0.03
"""Standard deviation of the log speed of machines of one class."""
_PLAIN = LoaderConfig.torch_default(1).canonical(has_accelerator=False)
"""PyTorch's default, whatever the batch size: it is verified beside each challenger."""


class RecordsInMemory:
    """Keeps records and decisions for as long as the process lives; a `autotune.study.setting.RecordStore`."""

    def __init__(self) -> None:
        self._records: dict[str, TrialRecord] = {}
        self._decisions: dict[str, Decision] = {}

    def save_record(self, record: TrialRecord) -> None:
        """Keep a record."""
        self._records[record.key] = record

    def records(self, study: str) -> Sequence[TrialRecord]:
        """Give the records of a study in order of their start."""
        return [record for record in self._records.values() if record.study == study]

    def save_decision(self, decision: Decision, *, promotion: Promotion) -> None:  # noqa: ARG002  (nobody reviews here)
        """Keep a decision."""
        self._decisions[decision.key] = decision

    def decisions(self, study: str) -> Sequence[Decision]:
        """Give the decisions of a study, newest first."""
        return [decision for decision in reversed(self._decisions.values()) if decision.study == study]

    deployed_decisions = decisions


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a study would have handed out at one point.

    Attributes:
        processes: Processes spent until then.
        seconds: Seconds of the recording's clock until then.
        config: The best configuration of the search so far, or the final one.
    """

    processes: int
    seconds: float
    config: LoaderConfig


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A study over a landscape, held against the truth.

    Attributes:
        landscape: The landscape.
        summary: How the study ended.
        challenger: What was confirmed, whether it was promoted or not; None where nothing was.
        steps: What it would have handed out, run by run.
    """

    landscape: Landscape
    summary: StudySummary
    challenger: LoaderConfig | None
    steps: tuple[Step, ...] = field(repr=False)

    @property
    def regret(self) -> float:
        """Share of the best rate of the whole space that the handed-out configuration loses."""
        return self.regret_of(self.summary.best)

    @property
    def bias(self) -> float | None:
        """Published ratio over the true one, less 1; None where none was published."""
        ratio, compared = self.summary.ratio, self.challenger
        if ratio is None or compared is None:
            return None
        chosen = self.summary.best if self.summary.best != self.summary.default else compared
        above, below = self.landscape.truth(chosen), self.landscape.truth(self.summary.default)
        return None if above is None or below is None else ratio.mean / (above / below) - 1

    @property
    def separated(self) -> bool:
        """Whether the published interval leaves out 1."""
        ratio = self.summary.ratio
        return ratio is not None and not ratio.low <= 1 <= ratio.high

    def regret_of(self, config: LoaderConfig) -> float:
        """Give the share of the best rate that a configuration loses."""
        best, truth = self.landscape.best.truth, self.landscape.truth(config)
        return 1 - truth / best if best and truth else 1.0


class _Machines:
    """The machines of a replayed study: one, or several whose speeds differ a little.

    Args:
        landscape: The recorded rates.
        seed: Seed of noise and speeds.
        noise: What is done to the rates.
        count: How many there are.
    """

    def __init__(self, landscape: Landscape, *, seed: int, noise: Noise | None, count: int) -> None:
        draw = random.Random(seed)  # noqa: S311 (no secret)
        speeds = [1.0, *(math.exp(draw.gauss(0, _SPREAD_OF_MACHINES)) for _ in range(count - 1))]
        self._runners = [
            ReplayRunner(landscape, seed=seed + 1000 * place, noise=noise, speed=speed, host=f"machine {place}")
            for place, speed in enumerate(speeds)
        ]

    def pool(self) -> TrialPool:
        """Put them together."""
        if len(self._runners) == 1:
            return SinglePool(self._runners[0])
        return MachinePool(self._runners, wait_s=0.0)

    @property
    def runs(self) -> int:
        """Processes that were spent on all of them."""
        return sum(runner.runs for runner in self._runners)

    def clock(self) -> float:
        """Give the seconds that have passed where no machine ever waits for another."""
        return sum(runner.elapsed_s for runner in self._runners) / len(self._runners)


class _Following:
    """Takes down what a study would hand out after each run."""

    def __init__(self, machines: _Machines) -> None:
        self._machines = machines
        self.steps: list[Step] = []
        self.challengers: list[LoaderConfig] = []

    def on_trial(self, event: TrialFinished) -> None:
        """Take down the best so far."""
        config = event.record.config
        if event.phase == "verify" and config.replace(batch_size=1) != _PLAIN:
            self.challengers.append(config)
        if event.best is not None:
            self._add(event.best.config)

    def on_decision(self, decision: Decision) -> None:
        """Take down the final one."""
        self._add(decision.config)

    def _add(self, config: LoaderConfig) -> None:
        self.steps.append(Step(processes=self._machines.runs, seconds=self._machines.clock(), config=config))

    def on_start(self, event: object) -> None:
        """Ignore it."""

    on_preparing = on_inspected = on_phase = on_profile = on_end = on_start


class Replays:
    """Studies over one landscape.

    Args:
        landscape: The recorded rates.
        budget_s: Budget of each study on the recording's clock.
    """

    def __init__(self, landscape: Landscape, *, budget_s: float = BUDGET_S) -> None:
        self.landscape = landscape
        self._spec = StudySpec(
            name="replay",
            dataset=DatasetSource(type_name=landscape.inspection.dataset.type_name),
            budget=Budget(time_s=budget_s),
            space=landscape.space,
        )
        # enumerating the space takes longer than a study over it
        self.space = Space.of_study(self._spec, landscape.inspection)

    def run(self, seed: int, noise: Noise | None = None, *, machines: int = 1) -> Replayed:
        """Run one study; on several machines which one answers is left to chance, so that no two runs are the same.

        Args:
            seed: Seed of noise and sampler.
            noise: What is done to the rates; None leaves the noise of the recording.
            machines: How many measure.
        """
        measuring = _Machines(self.landscape, seed=seed, noise=noise, count=machines)
        following = _Following(measuring)
        pool = measuring.pool()
        setting = Setting(
            run_key=f"{self.landscape.name} {seed}",
            spec=self._spec.model_copy(update={"seed": seed}),
            inspection=self.landscape.inspection,
            space=self.space,
            pool=pool,
            store=RecordsInMemory(),
            archive_root=Path("archives"),
            cache_root=Path("cache"),
            listeners=(following,),
            clock=measuring.clock,
        )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(direction="maximize", sampler=sampler(seed))
            with closing(pool):
                summary = run_study(setting, study)
        return Replayed(
            landscape=self.landscape,
            summary=summary,
            challenger=following.challengers[-1] if following.challengers else None,
            steps=tuple(following.steps),
        )
