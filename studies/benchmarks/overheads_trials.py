"""Overheads of measuring: what a trial takes beside what it measures, and whether tracking reaches into windows."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any
from uuid import uuid4

from overheads_figures import Entry, Scale, entry, ratio_entry, spread

from autotune.compose import Places, places, single_request, tune_study
from autotune.registry import open_registry
from autotune.spec import Interval, LoaderConfig, Profile, StudySpec, StudyStarted, TrialFinished, TrialRecord
from autotune.spec.study_file import spec_from_fields
from autotune.study.lock import machine_lock
from autotune.tracking.mlflow_listener import MlflowListener
from autotune.trial import LocalRunner

TRIAL_LIMIT = 0.25
TRACKING_LIMIT = 1.02
"""Rates without tracking over rates with it; this much is allowed for what the pairs can tell."""

_STUDY = "overheads"
_ANSWER_WITHIN_S = 120.0


def here(home: Path) -> Places:
    """Give the places in a folder of the benchmark; only the machine's lock is the user's."""
    return places(home, environ={name: text for name, text in os.environ.items() if name == "AUTOTUNE_LOCK"})


# Trials of a real study


def measure_trials(scale: Scale, work: Path) -> dict[str, Entry]:
    """Run small real studies, and see what part of their trials' time is not what they measure."""
    shares, studies, phases = [], [], []
    for number in range(scale.studies):
        at = here(work / f"study-{number}")
        spec = spec_from_fields({
            "name": _STUDY,
            "dataset": {
                "factory": "autotune.data.datasets.factories:forest_gaps",
                "arguments": {"root": str(work / "tiles"), "count": scale.tiles},
            },
            "budget": scale.budget,
            "seed": number,
        })  # fmt: skip
        probed = _Probed()
        summary = tune_study(spec, at=at, listeners=[probed])
        with open_registry(at.home) as registry:
            records = [record for record in registry.records(_STUDY) if record.measurement is not None]
        if summary.overhead_share is None:
            raise SystemExit(f"study {number} measured nothing: {summary.why}")
        shares.append(summary.overhead_share)
        trials_s = sum(record.wall_s for record in records)
        rest_s = summary.wall_s - trials_s - probed.seconds
        studies.append({"trials_s": trials_s, "probe_s": probed.seconds, "rest_s": rest_s, "wall_s": summary.wall_s})
        phases.append(_phases(records))
    share = fmean(shares)
    interval = Interval(mean=share, low=min(shares), high=max(shares)) if len(shares) > 1 else None
    return {
        "trial": entry(
            share, "", limit=TRIAL_LIMIT, reached=share <= TRIAL_LIMIT, interval=interval,
            shares=shares, seconds_a_study=studies, seconds_a_trial=phases,
        )
    }  # fmt: skip


class _Probed:
    """A listener that notes how long the probe took."""

    seconds = 0.0

    def on_profile(self, profile: Profile) -> None:
        """Take note of it."""
        self.seconds += profile.wall_s

    def __getattr__(self, _name: str) -> Callable[[object], None]:
        """Leave all else out."""
        return lambda _event: None


def _phase_s(record: TrialRecord) -> dict[str, float]:
    """Give the seconds of one trial by phase."""
    return record.measurement.phases.model_dump() if record.measurement else {}


def _phases(records: Sequence[TrialRecord]) -> dict[str, float]:
    """Give the mean seconds of a trial by phase, with what belongs to none."""
    means = {name: fmean(_phase_s(record)[name] for record in records) for name in _phase_s(records[0])}
    wall_s = fmean(record.wall_s for record in records)
    return {**means, "overhead_s": wall_s - sum(means.values()), "wall_s": wall_s, "trials": len(records)}


# Tracking


def measure_tracking(scale: Scale, work: Path) -> dict[str, Entry]:
    """Measure one configuration by a tuner with MLflow's listener and by one without, in pairs of random order."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    telling_ms = []
    order = random.Random(0)
    with ExitStack() as stack:
        stack.enter_context(machine_lock("benchmark of overheads", path=here(work).lock))
        tuners = {tracked: stack.enter_context(_tuner(work, scale, tracked=tracked)) for tracked in rates}
        for number in range(scale.pairs + 1):
            for tracked in order.sample(list(rates), len(rates)):
                rate, told_s = _ask(tuners[tracked])
                if number:
                    rates[tracked].append(rate)
                    telling_ms += [1000 * told_s] if tracked else []
    details = {"samples_per_s_tracked": rates[True], "samples_per_s_untracked": rates[False]}
    return {
        "tracking": ratio_entry(
            rates[False], rates[True], limit=TRACKING_LIMIT, telling_between_trials_ms=spread(telling_ms), **details
        )
    }


@contextmanager
def _tuner(work: Path, scale: Scale, *, tracked: bool) -> Iterator[Connection]:
    """Start a tuner of its own: once MLflow is imported, a process can no longer be one without it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (theirs, work / ("tracked" if tracked else "untracked"), scale.run_s, tracked)
    process = context.Process(target=serve, args=arguments)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()  # which ends it
        process.join()


def _ask(tuner: Connection) -> tuple[float, float]:
    tuner.send("run")
    if not tuner.poll(_ANSWER_WITHIN_S):
        raise SystemExit(f"a run gave no answer within {_ANSWER_WITHIN_S:.0f} s")
    answer: tuple[float, float] | str = tuner.recv()
    if isinstance(answer, str):
        raise SystemExit(f"a run failed: {answer}")
    return answer


def serve(pipe: Connection, home: Path, run_s: float, tracked: bool) -> None:
    """Measure one configuration whenever the other end asks; send its rate, and the seconds that telling took."""
    at = here(home)
    spec = spec_from_fields({"name": _STUDY, "dataset": "overheads_trials:make_numbers", "budget": "1h"})
    spec = spec.replace(confirm_time_cap_s=run_s)
    with open_registry(at.home) as registry, LocalRunner() as runner:
        listener = None
        if tracked:
            listener = MlflowListener(registry, tracking_uri=at.tracking_uri, artifact_root=at.home / "mlartifacts")
        told = _Telling(listener, spec)
        while _wanted(pipe):
            record = runner.run(single_request(spec, LoaderConfig(), at=at))
            registry.save_record(record)
            told_s = told.tell(record)
            failed = record.failure.message if record.failure else ""
            pipe.send(failed or (record.measurement.samples_per_s if record.measurement else 0.0, told_s))


class _Telling:
    """Tells the listener of a study's trials, as a study does.

    Args:
        listener: MLflow's; None tells nobody.
        spec: The study.
    """

    def __init__(self, listener: MlflowListener | None, spec: StudySpec) -> None:
        self._listener = listener
        self._spec = spec
        self._run_key = uuid4().hex
        if listener is not None:
            listener.warm_up()
            listener.on_start(StudyStarted(run_key=self._run_key, spec=spec))

    def tell(self, record: TrialRecord) -> float:
        """Tell of one trial, and give the seconds that this took."""
        if self._listener is None:
            return 0.0
        event = TrialFinished(run_key=self._run_key, phase="search", record=record, budget_s=self._spec.budget.time_s)
        started_s = perf_counter()
        self._listener.on_trial(event)
        return perf_counter() - started_s


def _wanted(pipe: Connection) -> bool:
    try:
        return bool(pipe.recv())
    except EOFError:
        return False


def make_numbers() -> Any:
    """Make a dataset that keeps the consuming process busy, so that whatever else runs there shows."""
    import torch
    from torch.utils.data import TensorDataset

    return TensorDataset(torch.zeros(20_000, 64))
