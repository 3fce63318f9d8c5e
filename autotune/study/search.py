"""The search: ask for a configuration, measure it, save, tell."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable

import optuna
from optuna.trial import TrialState

from autotune.constants import (
    EXPECTED_GAIN_SHARE,
    HEADROOM_REACHED_SHARE,
    PROCESS_RUNS_MAX,
    REPEATS_BEFORE_GUESS,
    SEARCH_TRIALS_MAX,
)
from autotune.space import PRIORS
from autotune.spec import LoaderConfig, TrialRecord
from autotune.study.earlier import remembered_configs
from autotune.study.forecast import Forecast
from autotune.study.guesses import Guesses
from autotune.study.optuna_store import KEY
from autotune.study.race import disqualifies
from autotune.study.runs import Runs
from autotune.study.transfer import Carried
from autotune.study.verdict import CONSTRAINT

_Suggestion = tuple[LoaderConfig, str]
"""A configuration, and why it is worth a run."""


class Search:
    """The search phase of one run.

    Args:
        runs: Measures, keeps and tells.
        study: Its Optuna study.
        guesses: What the probe lets expect of each configuration.
        forecast: Which limit each will break.
    """

    def __init__(self, runs: Runs, study: optuna.Study, guesses: Guesses, forecast: Forecast) -> None:
        self.runs = runs
        self.setting = runs.setting
        self.study = study
        self.ledger = runs.ledger
        self.guesses = guesses
        self.forecast = forecast
        self._random = random.Random(self.setting.spec.seed)  # noqa: S311 (no secret)
        self._repeats = 0

    def enqueue(self, first: Iterable[LoaderConfig], carried: Iterable[Carried] = ()) -> None:
        """Put configurations, those of similar studies, the best few by the estimate and the priors first in the queue.

        What is known is left out.
        """
        setting = self.setting
        machine = setting.inspection.machine
        suggested = [(config, "deployed or default") for config in first]
        suggested += [(config, "fastest before") for config in remembered_configs(setting)]
        suggested += _best_of_both(
            [(one.config, one.name) for one in carried], [(config, "estimate") for config in self.guesses.first()]
        )
        suggested += [(prior.config(machine, machine.memory_bytes), prior.name) for prior in PRIORS]
        queued = set(self.ledger.known())
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        taken = [trial.system_attrs.get("fixed_params") for trial in waiting]
        for config, name in suggested:
            point = setting.space.nearest(config)
            choices = setting.space.choices_of(point)
            if point in queued or choices is None:
                continue
            queued.add(point)
            # Optuna's own check would also leave out what an interrupted run had begun and not finished
            if choices not in taken:
                self.study.enqueue_trial(choices, user_attrs={"autotune:prior": name})

    def run(self, *, until_s: Callable[[], float], least_trials: int, spent: int = 0) -> str:
        """Measure until a further trial is not worth it, or not allowed.

        Args:
            until_s: Gives the clock reading at which no further trial is started.
            least_trials: Trials that are run even when the time is over.
            spent: Trials of the budget that an interrupted run has used; predicted breaches cost none.

        Returns:
            Why it ended, as half a sentence.
        """
        setting, done = self.setting, 0
        limit = min(setting.spec.budget.trials or SEARCH_TRIALS_MAX, PROCESS_RUNS_MAX)
        while setting.space.points - self.ledger.known():
            self._climb()
            if spent + done >= limit:
                return f"its {limit} trials are used up"
            if done >= least_trials:
                if setting.clock() >= until_s():
                    return "its share of the time is over"
                if reason := self._enough():
                    return reason
            done += self._one()
        return "every configuration was measured"

    def _enough(self) -> str | None:
        """Say why no further trial is worth a run; None while one may be."""
        best = self.ledger.best()
        if best is None or best.measurement is None or self._queued():
            return None
        if self._share_of_bound() >= HEADROOM_REACHED_SHARE:
            return f"the best reached {self._share_of_bound():.0%} of what any loader could"
        promising = self._promising()
        if promising is not None and promising[1] < EXPECTED_GAIN_SHARE:
            return f"no other configuration can be expected to gain {EXPECTED_GAIN_SHARE:.0%}"
        return None

    def _share_of_bound(self) -> float:
        """Give the best rate over what no loader can exceed; 0 where either is unknown."""
        best, bound = self.ledger.best(), self.guesses.highest_bound()
        if best is None or best.measurement is None or bound is None:
            return 0.0
        return best.measurement.samples_per_s / bound

    def _queued(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _climb(self) -> None:
        """Queue the neighbours of the best once nothing else is queued, while it has some and something to gain."""
        if self._queued() or self._share_of_bound() >= HEADROOM_REACHED_SHARE:
            return
        known = self.ledger.known()
        for config in self.guesses.neighbours(self._rates()):
            choices = self.setting.space.choices_of(config)
            if config not in known and choices is not None:
                self.study.enqueue_trial(choices, user_attrs={"autotune:prior": "neighbour"})

    def _rates(self) -> dict[LoaderConfig, float]:
        return {record.config: self.ledger.worth(record) for record in self.ledger.ranked()}

    def _promising(self) -> tuple[LoaderConfig | None, float] | None:
        return self.guesses.promising(self._rates())

    def _one(self) -> int:
        """Run one proposal; gives 1 where a process was spent on it."""
        trial = self.study.ask()
        config = self.setting.space.choose(lambda name, choices: trial.suggest_categorical(name, list(choices)))
        known = self.ledger.get(config)
        if known is not None or config not in self.setting.space.points:
            self._repeat(trial, known)
            return 0
        self._repeats = 0
        record = self._measure(trial, config)
        self.setting.store.save_record(record)
        self.ledger.add(record)
        self.forecast.learn(record)
        if not is_predicted(record):
            self.runs.records.append(record)
        self._tell(trial, record)
        self.runs.tell(record, "search")
        return int(not is_predicted(record))

    def _measure(self, trial: optuna.Trial, config: LoaderConfig) -> TrialRecord:
        setting = self.setting
        request = setting.request(config, phase="search", number=trial.number, incumbent=self.ledger.best())
        trial.set_user_attr(KEY, request.key)
        breach = self.forecast.breach(config)
        if breach is None:
            record = setting.runner.run(request)
            if disqualifies(record) or record.measurement is not None:
                return record
            again = setting.runner.run(request)  # a bad reading says nothing of the configuration
            return again.replace(attempts=record.attempts + again.attempts)
        return TrialRecord(
            key=request.key,
            study=request.study,
            number=request.number,
            phase="search",
            workload=request.workload,
            config=config,
            failure=breach,
            machine=setting.inspection.machine,
            dataset=setting.inspection.dataset,
        )

    def _tell(self, trial: optuna.Trial, record: TrialRecord) -> None:
        told = self.ledger.verdict(record)
        trial.set_user_attr("autotune:result", _story(record))
        trial.set_constraint(CONSTRAINT, told.constraint)
        self.study.tell(trial, told.value)

    def _repeat(self, trial: optuna.Trial, known: TrialRecord | None) -> None:
        """Answer a proposal from its record, or refuse it, without a process."""
        told = self.ledger.verdict(known) if known else None
        trial.set_constraint(CONSTRAINT, told.constraint if told else 1.0)
        self.study.tell(trial, told.value if told else 0.0)
        self._repeats += 1
        if self._repeats >= REPEATS_BEFORE_GUESS:
            choices = self.setting.space.choices_of(self._next_guess())
            self.study.enqueue_trial(choices or {}, user_attrs={"autotune:prior": "unmeasured point"})

    def _next_guess(self) -> LoaderConfig:
        """Give the unmeasured configuration that promises most, else any."""
        left = self.setting.space.points - self.ledger.known()
        found, _ = self._promising() or (None, 0.0)
        return (
            found if found is not None and found in left else self._random.choice(sorted(left, key=LoaderConfig.label))
        )


def is_predicted(record: TrialRecord) -> bool:
    """Tell whether a record was predicted, so that no process was spent on it."""
    return record.failure is not None and record.failure.phase == "predict" and record.wall_s == 0.0


def _best_of_both(one: list[_Suggestion], other: list[_Suggestion]) -> list[_Suggestion]:
    """Put the best of each first: a short budget pays for no more, and either may be wrong."""
    return [*one[:1], *other[:1], *one[1:], *other[1:]]


def _story(record: TrialRecord) -> str:
    """Write for optuna-dashboard what became of a trial."""
    if record.failure is not None:
        return f"{record.failure.kind}: {record.failure.message}"
    measured = record.measurement
    if measured is None:
        return ""
    return json.dumps(
        {
            "samples_per_s": round(measured.samples_per_s, 1),
            "interval": [round(measured.steady.low, 1), round(measured.steady.high, 1)],
            "data_wait_share": round(measured.data_wait_share, 3),
            "peak_bytes": measured.memory.device_peak_bytes,
        }
    )
