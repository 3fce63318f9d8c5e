"""Overheads of keeping the books: what asking, saving, telling and tracking a trial take, by the trials there are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from uuid import uuid4

import optuna
from optuna.distributions import CategoricalDistribution
from overheads_figures import Entry, Scale, entry, ratio_entry, spread
from overheads_resolving import made_up_measurement, made_up_workload, timed

from autotune.machine import machine_facts
from autotune.registry import Registry, open_registry
from autotune.space import Space
from autotune.spec import (
    DatasetFacts,
    Inspection,
    LoaderConfig,
    StudySpec,
    StudyStarted,
    TrialFinished,
    TrialRecord,
)
from autotune.spec.record import new_key
from autotune.spec.study_file import spec_from_fields
from autotune.study.optuna_store import KEY, open_storage, open_study
from autotune.study.verdict import CONSTRAINT
from autotune.tracking.mlflow_listener import TOPIC, MlflowListener, default_tracking_uri
from autotune.units import KIB

GROWTH_LIMIT = 2.0
STEPS = ("ask", "save", "tell", "track")
BOOKS = ("save", "tell", "track")
"""What must not grow; asking grows with the sampler's history, and is reported alone."""

_ALL_DAY_S = 86_400.0


def measure_books(scale: Scale, work: Path) -> dict[str, Entry]:
    """Add trials to a small study and to a large one in turns, and time every step."""
    times: dict[int, list[dict[str, float]]] = {count: [] for count in scale.trials}
    order = random.Random(0)
    with ExitStack() as stack:
        books = {count: stack.enter_context(filled(work / f"books-{count}", count)) for count in scale.trials}
        for number in range(scale.rounds + 1):
            for count in order.sample(list(books), len(books)):
                taken_ms = books[count].add()
                if number:  # the first one compiles statements
                    times[count].append(taken_ms)
    few, many = scale.trials
    sums = {count: [sum(one[step] for step in BOOKS) for one in found] for count, found in times.items()}
    steps = {
        step: {str(count): spread([one[step] for one in found]) for count, found in times.items()} for step in STEPS
    }
    asking = steps.pop("ask")
    totals = {str(count): spread(taken) for count, taken in sums.items()}
    slowest = asking[str(many)]["median"]
    return {
        "books": ratio_entry(
            sums[many], sums[few], limit=GROWTH_LIMIT, trials=list(scale.trials), ms=totals, ms_by_step=steps
        ),
        "ask": entry(slowest, "ms", limit=None, reached=None, trials=list(scale.trials), ms=asking),
    }


class Books:
    """Registry, Optuna study and MLflow of one study, kept as a real study keeps them.

    Args:
        home: Folder of all three.
        registry: The registry in it.
        seed: Seed of what is made up.
    """

    def __init__(self, home: Path, registry: Registry, *, seed: int = 0) -> None:
        self._registry = registry
        self._random = random.Random(seed)
        self._machine = machine_facts()
        self._dataset = DatasetFacts(type_name="pack.Data", length=1000, staged=True)
        self._spec: StudySpec = spec_from_fields({"name": "books", "dataset": "pack:make", "budget": "1h"})
        self._space = Space.of_study(self._spec, self._inspection())
        self._points = sorted(self._space.points, key=LoaderConfig.label)
        self._study = open_study(open_storage(f"sqlite:///{home / 'optuna.db'}"), self._spec, self._space)
        self._run_key = uuid4().hex
        self._listener = MlflowListener(
            registry, tracking_uri=default_tracking_uri(home), artifact_root=home / "mlartifacts", drain_s=_ALL_DAY_S
        )
        self._listener.warm_up()
        self._listener.on_start(StudyStarted(run_key=self._run_key, spec=self._spec))

    def _inspection(self) -> Inspection:
        return Inspection(
            dataset=self._dataset,
            machine=self._machine,
            sample_structure="(float32[1,64,64])",
            sample_bytes=16 * KIB,
            largest_sample_bytes=16 * KIB,
            fingerprint="0" * 16,
        )

    def fill(self, count: int, *, tracked: int | None = None) -> None:
        """Put trials into all three without asking the sampler, which would take minutes.

        Args:
            count: Trials.
            tracked: Those that MLflow is told of, the first ones; the others are noted as told. None is all.
        """
        trials = []
        for number in range(count):
            record = self._record(self._random.choice(self._points), number)
            if tracked is None or number < tracked:
                self._registry.save_record(record)
                self._listener.on_trial(self._event(record))
            else:
                key = f"trial:{record.key}"
                self._registry.save_record(record, [(TOPIC, key, "")])
                self._registry.outbox_settle(TOPIC, key)
            trials.append(self._finished(record))
        self._study.add_trials(trials)

    def add(self, *, asking: bool = True) -> dict[str, float]:
        """Go through one trial as the search does, all but the measuring; give milliseconds by step.

        Args:
            asking: Whether the sampler proposes; it is asked for what was queued otherwise, and its time means nothing.
        """
        if not asking:
            self._study.enqueue_trial(self._space.choices_of(self._random.choice(self._points)) or {})
        started_s = perf_counter()
        trial = self._study.ask()
        config = self._space.choose(lambda name, choices: trial.suggest_categorical(name, list(choices)))
        asked_s = perf_counter() - started_s
        record = self._record(config, trial.number)
        steps = {
            "save": lambda: self._registry.save_record(record),
            "tell": lambda: self._tell(trial, record),
            "track": lambda: self._listener.on_trial(self._event(record)),
        }
        return {"ask": 1000 * asked_s, **{name: 1000 * timed(step) for name, step in steps.items()}}

    def _tell(self, trial: optuna.Trial, record: TrialRecord) -> None:
        trial.set_user_attr(KEY, record.key)
        trial.set_user_attr("autotune:result", "{}")
        trial.set_constraint(CONSTRAINT, 0.0)
        self._study.tell(trial, _rate(record))

    def _record(self, config: LoaderConfig, number: int) -> TrialRecord:
        return TrialRecord(
            key=new_key(),
            study=self._spec.name,
            number=number,
            workload=made_up_workload(),
            config=config,
            measurement=made_up_measurement(self._random.uniform(100.0, 300.0)),
            machine=self._machine,
            dataset=self._dataset,
            wall_s=3.0,
        )

    def _finished(self, record: TrialRecord) -> optuna.trial.FrozenTrial:
        choices = self._space.choices_of(record.config) or {}
        dimensions = self._space.dimensions.model_dump()
        return optuna.trial.create_trial(
            params=choices,
            distributions={name: CategoricalDistribution(list(dimensions[name])) for name in choices},
            value=_rate(record),
            user_attrs={KEY: record.key, "autotune:result": "{}"},
            constraints={CONSTRAINT: 0.0},
        )

    def _event(self, record: TrialRecord) -> TrialFinished:
        return TrialFinished(run_key=self._run_key, phase="search", record=record, budget_s=self._spec.budget.time_s)


def _rate(record: TrialRecord) -> float:
    return record.measurement.samples_per_s if record.measurement else 0.0


@contextmanager
def filled(home: Path, count: int) -> Iterator[Books]:
    """Open books with so many trials in them."""
    with open_registry(home) as registry:
        books = Books(home, registry)
        books.fill(count)
        yield books
