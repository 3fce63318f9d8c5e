"""How the rivals search: one axis after another, a grid, at random. All measure as our study does, only once each."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

import optuna

from autotune.compose import Places, inspect_dataset, single_request
from autotune.constants import TIME_CAP_MIN_S, TIME_CAP_SHARE
from autotune.space import Space
from autotune.space.dimensions import PREFETCH_FACTORS, worker_choices
from autotune.space.priors import REFERENCE_BATCH_SIZE
from autotune.spec import LoaderConfig, StudySpec
from autotune.trial import LocalRunner

DPT_PREFETCH_MAX = 10
"""Largest prefetch factor of the grid; the paper stops where memory overflows, which no set of ours reaches."""


class Trials:
    """Runs of one contender: each configuration in a fresh process, until its seconds are over.

    Args:
        runner: Measures.
        spec: The study that our own contender runs, for workload, space and time caps.
        at: Where archives go.
        seconds: Seconds after which no further run is started.
    """

    def __init__(self, runner: LocalRunner, spec: StudySpec, *, at: Places, seconds: float) -> None:
        self.runner = runner
        self.spec = spec
        self.at = at
        self.processes = 0
        self.failures = 0
        self._until_s = monotonic() + seconds
        self._best: tuple[float, LoaderConfig] | None = None

    @property
    def left_s(self) -> float:
        """Seconds that are left to start runs in."""
        return self._until_s - monotonic()

    @property
    def best(self) -> LoaderConfig | None:
        """The configuration of the highest single run; None where none was measured."""
        return self._best[1] if self._best else None

    def rate(self, config: LoaderConfig) -> float:
        """Measure a configuration once, in samples/s; 0 where the run fails."""
        cap_s = min(self.spec.time_cap_s, max(TIME_CAP_MIN_S, TIME_CAP_SHARE * self.spec.budget.time_s))
        request = single_request(self.spec, config, at=self.at).replace(phase="search", time_cap_s=cap_s)
        record = self.runner.run(request)
        self.processes += record.attempts
        if record.measurement is None:
            self.failures += 1
            return 0.0
        rate = record.measurement.samples_per_s
        if self._best is None or rate > self._best[0]:
            self._best = (rate, config)
        return rate


def plain(workers: int, prefetch: int | None = None) -> LoaderConfig:
    """Give a loader of plain files at the common batch size, canonical: workers that stay over epochs."""
    config = LoaderConfig(batch_size=REFERENCE_BATCH_SIZE, num_workers=workers, prefetch_factor=prefetch)
    return config.canonical(has_accelerator=False)


def one_axis(trials: Trials, cores: int) -> str:
    """Try the worker counts, then for the best of them the prefetch factors, one run each."""
    counts = worker_choices(cores)
    _try_all(trials, [plain(count) for count in counts])
    workers = trials.best.num_workers if trials.best else 0
    tried = trials.best.prefetch_factor if trials.best else None
    factors = [factor for factor in PREFETCH_FACTORS if workers and factor != tried]
    _try_all(trials, [plain(workers, factor) for factor in factors])
    return f"{trials.processes} of {len(counts) + len(factors)} runs"


def dpt_grid(trials: Trials, cores: int, gpus: int) -> str:
    """Try for each worker count growing prefetch factors, one run each, as the Dataloader Parameter Tuner does."""
    counts = range(gpus, max(cores, gpus) + 1, gpus)
    for workers in counts:
        for prefetch in range(1, DPT_PREFETCH_MAX + 1):
            if trials.left_s <= 0:
                break
            if not trials.rate(plain(workers, prefetch)):
                break  # a failure stands for the paper's memory overflow
    return f"{trials.processes} of at most {len(counts) * DPT_PREFETCH_MAX} runs"


def random_search(trials: Trials, seed: int) -> str:
    """Draw from our own space by Optuna's random sampler, one run for each draw."""
    inspection = inspect_dataset(trials.runner, trials.spec, at=trials.at)
    space = Space.of_study(trials.spec, inspection)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed))

    def objective(trial: optuna.Trial) -> float:
        config = space.choose(lambda name, choices: trial.suggest_categorical(name, list(choices)))
        return trials.rate(config) if config in space.points else 0.0

    if trials.left_s > 0:
        study.optimize(objective, timeout=trials.left_s)
    return f"{trials.processes} runs in a space of {len(space.points)}"


def _try_all(trials: Trials, configs: Sequence[LoaderConfig]) -> None:
    for config in configs:
        if trials.left_s <= 0:
            return
        trials.rate(config)
