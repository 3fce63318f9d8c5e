"""The search: ask for a configuration, measure it, save, tell."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable

import optuna
from optuna.trial import TrialState

from autotune.space import PRIORS
from autotune.spec import LoaderConfig, TrialFinished, TrialRecord
from autotune.study.feasibility import predicted_breach
from autotune.study.ledger import Ledger
from autotune.study.optuna_store import KEY
from autotune.study.setting import Setting
from autotune.study.verdict import CONSTRAINT

REPEATS_BEFORE_RANDOM = 3
"""Repeated proposals in a row after which an unmeasured point is drawn: the sampler has converged."""


class Search:
    """The search phase of one run.

    Args:
        setting: The run.
        study: Its Optuna study.
        ledger: What is known from before.
        started: Clock reading at which the run began.
    """

    def __init__(self, setting: Setting, study: optuna.Study, ledger: Ledger, started: float) -> None:
        self.setting = setting
        self.study = study
        self.ledger = ledger
        self.runs: list[TrialRecord] = []
        self._started = started
        self._random = random.Random(setting.spec.seed)  # noqa: S311 (no secret)
        self._repeats = 0

    def enqueue(self, first: Iterable[LoaderConfig]) -> None:
        """Put configurations, then the priors, at the head of the queue; what is known is left out."""
        setting = self.setting
        machine = setting.inspection.machine
        suggested = [(config, "deployed or default") for config in first]
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

    def run(self, *, until_s: float, least_trials: int, spent: int = 0) -> None:
        """Measure until the time is over, the trials are used up, or no point is left.

        Args:
            until_s: Clock reading at which no further trial is started.
            least_trials: Trials that are run even when the time is over.
            spent: Trials of the budget that an interrupted run has used; predicted breaches cost none.
        """
        setting, done = self.setting, 0
        limit = setting.spec.budget.trials
        while setting.space.points - self.ledger.known():
            if limit is not None and spent + done >= limit:
                break
            if setting.clock() >= until_s and done >= least_trials:
                break
            done += self._one()

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
        if not is_predicted(record):
            self.runs.append(record)
        self._tell(trial, record)
        self.setting.notify("on_trial", self._event(record))
        return int(not is_predicted(record))

    def _measure(self, trial: optuna.Trial, config: LoaderConfig) -> TrialRecord:
        setting = self.setting
        request = setting.request(config, phase="search", number=trial.number, incumbent=self.ledger.best())
        trial.set_user_attr(KEY, request.key)
        breach = predicted_breach(
            config,
            inspection=setting.inspection,
            limit=setting.memory_limit_bytes,
            failures=self.ledger.failures(),
        )
        if breach is None:
            return setting.runner.run(request)
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
        if self._repeats >= REPEATS_BEFORE_RANDOM:
            left = sorted(self.setting.space.points - self.ledger.known(), key=LoaderConfig.label)
            choices = self.setting.space.choices_of(self._random.choice(left))
            self.study.enqueue_trial(choices or {}, user_attrs={"autotune:prior": "unmeasured point"})

    def _event(self, record: TrialRecord) -> TrialFinished:
        setting = self.setting
        return TrialFinished(
            run_key=setting.run_key,
            phase="search",
            record=record,
            best=self.ledger.best(),
            counts=self.ledger.counts(),
            elapsed_s=setting.clock() - self._started,
            budget_s=setting.spec.budget.time_s,
        )


def is_predicted(record: TrialRecord) -> bool:
    """Tell whether a record was predicted, so that no process was spent on it."""
    return record.failure is not None and record.failure.phase == "predict"


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
