"""The search: ask for a configuration, measure it, save, tell."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

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
from autotune.spec import Failure, LoaderConfig, TrialRecord, TrialRequest
from autotune.study.earlier import remembered_configs
from autotune.study.forecast import Forecast
from autotune.study.guesses import Guesses
from autotune.study.optuna_store import KEY
from autotune.study.race import disqualifies
from autotune.study.runs import Runs
from autotune.study.transfer import Carried
from autotune.study.verdict import CONSTRAINT
from autotune.trial import Records

RESULT = "autotune:result"
"""User attribute with what became of a trial, for optuna-dashboard."""


@dataclass(kw_only=True)
class _Flight:
    """A trial that is being measured.

    Attributes:
        trial: Optuna's trial.
        config: Its configuration.
        first: The bad reading that it came to before; None in its first run.
        repeats: Trials that proposed the same meanwhile.
    """

    trial: optuna.Trial
    config: LoaderConfig
    first: TrialRecord | None = None
    repeats: list[optuna.Trial] = field(default_factory=list)


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
        self._done = 0
        self._flying: dict[Future[Records], _Flight] = {}

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
        """Measure until a further trial is not worth it, or not allowed; on several machines one trial each at a time.

        Args:
            until_s: Gives the clock reading at which no further trial is started.
            least_trials: Trials that are run even when the time is over.
            spent: Trials of the budget that an interrupted run has used; predicted breaches cost none.

        Returns:
            Why it ended, as half a sentence.
        """
        while True:
            if len(self._flying) >= self.runs.capacity or any(future.done() for future in self._flying):
                self._land()  # what is known by now decides what is worth trying
            elif (reason := self._end(until_s, least_trials=least_trials, spent=spent)) is None:
                self._propose()
            elif self._flying:
                self._land()
            else:
                self._withdraw()
                return reason

    def _end(self, until_s: Callable[[], float], *, least_trials: int, spent: int) -> str | None:
        """Say why no further trial is started now; None where one is."""
        setting, begun = self.setting, self._done + len(self._flying)
        limit = min(setting.spec.budget.trials or SEARCH_TRIALS_MAX, PROCESS_RUNS_MAX)
        if not self._left():
            return "every configuration was measured"
        self._climb()
        if spent + begun >= limit:
            return f"its {limit} trials are used up"
        if begun < least_trials:
            return None
        return "its share of the time is over" if setting.clock() >= until_s() else self._enough()

    def _withdraw(self) -> None:
        """Take back what is still queued: the next run begins with the default and what it expects most of by then."""
        for _ in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            trial = self.study.ask()
            trial.set_user_attr(RESULT, "not tried, as the search ended before its turn")
            self.study.tell(trial, state=TrialState.FAIL)

    def _left(self) -> frozenset[LoaderConfig]:
        """Give what is neither measured nor being measured."""
        return self.setting.space.points - self.ledger.known() - self._begun()

    def _begun(self) -> frozenset[LoaderConfig]:
        return frozenset(flight.config for flight in self._flying.values())

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
        """Give the best rate over what no loader can exceed, both of one machine; 0 where either is unknown."""
        host, bound = self.guesses.host, self.guesses.highest_bound()
        ranked = self.ledger.ranked()
        best = next((one for one in ranked if host is None or (one.machine and one.machine.host == host)), None)
        if best is None or best.measurement is None or bound is None:
            return 0.0
        return best.measurement.samples_per_s / bound

    def _queued(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _climb(self) -> None:
        """Queue the neighbours of the best once nothing else is queued, while it has some and something to gain."""
        if self._queued() or self._share_of_bound() >= HEADROOM_REACHED_SHARE:
            return
        known = self.ledger.known() | self._begun()
        for config in self.guesses.neighbours(self._rates()):
            choices = self.setting.space.choices_of(config)
            if config not in known and choices is not None:
                self.study.enqueue_trial(choices, user_attrs={"autotune:prior": "neighbour"})

    def _rates(self) -> dict[LoaderConfig, float]:
        return {record.config: self.ledger.worth(record) for record in self.ledger.ranked()}

    def _promising(self) -> tuple[LoaderConfig | None, float] | None:
        return self.guesses.promising(self._rates(), begun=self._begun())

    def _propose(self) -> None:
        """Take one proposal: have it measured, or answer it from what is known, being measured or predicted."""
        trial = self.study.ask()
        config = self.setting.space.choose(lambda name, choices: trial.suggest_categorical(name, list(choices)))
        same = next((flight for flight in self._flying.values() if flight.config == config), None)
        if same is not None:
            same.repeats.append(trial)
            self._count_repeat()
            return
        known = self.ledger.get(config)
        if known is not None or config not in self.setting.space.points:
            self._repeat(trial, known)
            self._count_repeat()
            return
        self._repeats = 0
        breach = self.forecast.breach(config)
        if breach is None:
            self._start(_Flight(trial=trial, config=config))
        else:
            self._take(trial, self._predicted(self._request(trial, config), breach))

    def _request(self, trial: optuna.Trial, config: LoaderConfig) -> TrialRequest:
        request = self.setting.request(config, phase="search", number=trial.number, incumbent=self.ledger.best())
        trial.set_user_attr(KEY, request.key)
        return request

    def _start(self, flight: _Flight) -> None:
        self._flying[self.setting.pool.submit([self._request(flight.trial, flight.config)])] = flight

    def _land(self) -> None:
        """Wait until a trial has ended, and take all that have; an error is raised once the others are kept."""
        wait(self._flying, return_when=FIRST_COMPLETED)
        ended = [future for future in self._flying if future.done()]
        for future in sorted(ended, key=lambda future: future.exception() is not None):
            (record,) = future.result()
            flight = self._flying.pop(future)
            if record.measurement is None and not disqualifies(record) and flight.first is None:
                flight.first = record  # a bad reading says nothing of the configuration
                self._start(flight)
                continue
            attempts = record.attempts + (flight.first.attempts if flight.first else 0)
            self._take(flight.trial, record.replace(attempts=attempts))
            self._done += 1
            for trial in flight.repeats:
                self._repeat(trial, record)

    def _take(self, trial: optuna.Trial, record: TrialRecord) -> None:
        """Keep a record, then tell it."""
        self.setting.store.save_record(record)
        self.ledger.add(record)
        self.forecast.learn(record)
        if not is_predicted(record):
            self.runs.records.append(record)
        self._tell(trial, record)
        self.runs.tell(record, "search")

    def _predicted(self, request: TrialRequest, breach: Failure) -> TrialRecord:
        return TrialRecord(
            key=request.key,
            study=request.study,
            number=request.number,
            phase="search",
            workload=request.workload,
            config=request.config,
            failure=breach,
            machine=self.setting.inspection.machine,
            dataset=self.setting.inspection.dataset,
        )

    def _tell(self, trial: optuna.Trial, record: TrialRecord) -> None:
        told = self.ledger.verdict(record)
        trial.set_user_attr(RESULT, _story(record))
        trial.set_constraint(CONSTRAINT, told.constraint)
        self.study.tell(trial, told.value)

    def _repeat(self, trial: optuna.Trial, known: TrialRecord | None) -> None:
        """Answer a proposal from its record, or refuse it, without a process."""
        told = self.ledger.verdict(known) if known else None
        trial.set_constraint(CONSTRAINT, told.constraint if told else 1.0)
        self.study.tell(trial, told.value if told else 0.0)

    def _count_repeat(self) -> None:
        """Propose what promises most, where the sampler has given nothing new for some time."""
        self._repeats += 1
        if self._repeats >= REPEATS_BEFORE_GUESS:
            choices = self.setting.space.choices_of(self._next_guess())
            self.study.enqueue_trial(choices or {}, user_attrs={"autotune:prior": "unmeasured point"})

    def _next_guess(self) -> LoaderConfig:
        """Give the unmeasured configuration that promises most, else any."""
        left = self._left()
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
