"""Plain search methods over a recorded landscape: each takes the highest single run that it saw."""

from __future__ import annotations

import itertools
import math
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from autotune.space import Space
from autotune.spec import DatasetSource, LoaderConfig, TrialRequest, Workload
from autotune.study.replayed import Replays
from autotune.trial import ReplayRunner
from autotune.trial.noise import Noise

Tell = Callable[[float], None]
Proposals = Iterator[tuple[LoaderConfig, Tell]]
"""Configurations in the order in which a method wants them, each with what takes its rate."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The true regret of the best so far, run by run."""

    processes: list[int]
    seconds: list[float]
    regrets: list[float]

    def first_within(self, share: float, places: Sequence[float]) -> float:
        """Give the place from which on the regret is never above a share again; infinite for never."""
        found = math.inf
        for place, regret in zip(reversed(places), reversed(self.regrets), strict=True):
            if regret > share:
                break
            found = place
        return found


def curve_of(method: str, replays: Replays, *, seed: int, noise: Noise, runs: int) -> tuple[Curve, float | None]:
    """Run a method; give its curve, and by how much the highest single run flatters the configuration that it is of."""
    runner = ReplayRunner(replays.landscape, seed=seed, noise=noise)
    best_rate, best = 0.0, None
    curve = Curve(processes=[], seconds=[], regrets=[])
    truth = replays.landscape.best.truth or 1.0
    for config, tell in itertools.islice(RIVALS[method](replays.space, seed), runs):
        record = runner.run(_request(config))
        rate = record.measurement.samples_per_s if record.measurement else 0.0
        tell(rate)
        if rate > best_rate:
            best_rate, best = rate, config
        found = replays.landscape.truth(best) if best else None
        curve.processes.append(runner.runs)
        curve.seconds.append(runner.elapsed_s)
        curve.regrets.append(1 - (found or 0.0) / truth)
    found = replays.landscape.truth(best) if best else None
    return curve, best_rate / found - 1 if found else None


def _request(config: LoaderConfig) -> TrialRequest:
    workload = Workload(dataset=DatasetSource(type_name="recorded"))
    return TrialRequest(study="rival", workload=workload, config=config, archive_root="archives", cache_root="cache")


def _ignore(_rate: float) -> None:
    """Learn nothing."""


def random_search(space: Space, seed: int) -> Proposals:
    """Give the configurations in random order, each once."""
    points = sorted(space.points, key=LoaderConfig.label)
    random.Random(seed).shuffle(points)
    return ((point, _ignore) for point in points)


def grid(space: Space, _seed: int) -> Proposals:
    """Give the configurations in the order of nested loops, the last dimension fastest."""
    names = ("archive", "cache", "decoder", "batch_size", "num_workers", "prefetch_factor")
    ordered = sorted(space.points, key=lambda point: [_rank(getattr(point, name)) for name in names])
    return ((point, _ignore) for point in ordered)


def _rank(value: Any) -> tuple[bool, str, float]:
    return value is not None, value if isinstance(value, str) else "", value if isinstance(value, int) else 0.0


def plain_tpe(space: Space, seed: int) -> Proposals:
    """Give what Optuna's TPE proposes; a repeated proposal is measured again, as it does by itself."""
    return _optuna(space, optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True))


def plain_gp(space: Space, seed: int) -> Proposals:
    """Give what Optuna's Gaussian process proposes."""
    return _optuna(space, optuna.samplers.GPSampler(seed=seed))


def _optuna(space: Space, sampler: optuna.samplers.BaseSampler) -> Proposals:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while True:
        trial = study.ask()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = space.choose(lambda name, choices, trial=trial: trial.suggest_categorical(name, list(choices)))
        yield config, lambda rate, trial=trial: study.tell(trial, rate)


RIVALS: dict[str, Callable[[Space, int], Proposals]] = {
    "random": random_search,
    "grid": grid,
    "tpe": plain_tpe,
    "gp": plain_gp,
}
