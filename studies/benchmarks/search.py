"""How many runs and seconds a method needs for a good configuration, on recorded landscapes.

    python studies/benchmarks/search.py --quick
    python studies/benchmarks/search.py --seeds 100 --record
    python studies/benchmarks/search.py --json > search.json

Ours (probe, search, race, confirm) against random search, a grid in its usual order, plain TPE and a plain
Gaussian process (both Optuna's). The rivals take the highest single run, as they do. Nothing is measured: every run
is answered from studies/records/landscapes/ with noise, and costs what it cost there; an archive's build is charged
to its first reader, the filling of a cache to every run.

The score of a method is that of Willemsen et al., 'A methodology for comparing optimization algorithms for
auto-tuning' (Future Generation Computer Systems 159, 2024): the share of the way from random search's curve to the
optimum, mean over the seconds in which random search gets 95 % of the way from the median configuration.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# the matrices of a study are small: BLAS threads of parallel studies would only wait for each other
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.progress import track
from search_rivals import RIVALS, Curve, curve_of

from autotune.machine import machine_facts
from autotune.study.replayed import Replays
from autotune.trial import Landscape
from autotune.trial.noise import Noise

RECORDS = Path(__file__).resolve().parent.parent / "records"
LANDSCAPES = RECORDS / "landscapes"

OURS = "autotune"
SHARES = (0.05, 0.02)
_REPLAYS: dict[str, Replays] = {}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One method on one landscape with one seed."""

    method: str
    landscape: str
    noise: float
    seed: int
    runs: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one method came to; the curve is the true regret of the best so far."""

    task: Task
    regret: float
    flattery: float | None
    processes: int
    seconds: float
    curve: Curve


def main() -> None:
    """Replay all methods, print the table, and with `--record` keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=60, help="studies of each method, landscape and noise")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.02, 0.04, 0.06], help="run-to-run noise")
    parser.add_argument("--runs", type=int, default=130, help="processes that each rival may spend")
    parser.add_argument("--landscapes", nargs="+", default=None, help="letters; all that are recorded by default")
    parser.add_argument("--quick", action="store_true", help="a few seeds at one noise")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--record", action="store_true", help="write table and plot to studies/records/")
    options = parser.parse_args()
    letters = options.landscapes or sorted(path.stem for path in LANDSCAPES.glob("*.json"))
    seeds, noises = (4, [0.04]) if options.quick else (options.seeds, options.noise)
    tasks = [
        Task(method=method, landscape=letter, noise=noise, seed=seed, runs=options.runs)
        for noise in noises
        for letter in letters
        for method in (OURS, *RIVALS)
        for seed in range(_seeds_of(method, seeds))
    ]
    results = run_all(tasks)
    document = summarise(results, letters=letters, noises=noises)
    if options.record:
        from search_report import write

        write(document, results, RECORDS)
    print(json.dumps(document, indent=1)) if options.json else print_table(document)


def _seeds_of(method: str, seeds: int) -> int:
    """Give fewer seeds to what is slow or does not depend on them: a grid only sees other noise."""
    return max(2, seeds // 6) if method == "gp" else seeds


def run_all(tasks: Sequence[Task]) -> list[Result]:
    """Replay in as many processes as there are CPUs."""
    shown = Console(stderr=True)
    with ProcessPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        done = pool.map(replay, tasks, chunksize=2)
        return list(track(done, "replaying", total=len(tasks), console=shown))


def replay(task: Task) -> Result:
    """Run one method over one landscape."""
    replays = _replays(task.landscape)
    noise = Noise(run_to_run=task.noise)
    if task.method != OURS:
        curve, flattery = curve_of(task.method, replays, seed=task.seed, noise=noise, runs=task.runs)
        return Result(
            task=task, regret=curve.regrets[-1], flattery=flattery, processes=curve.processes[-1],
            seconds=curve.seconds[-1], curve=curve,
        )  # fmt: skip
    found = replays.run(task.seed, noise)
    curve = Curve(
        processes=[step.processes for step in found.steps],
        seconds=[step.seconds for step in found.steps],
        regrets=[found.regret_of(step.config) for step in found.steps],
    )
    return Result(
        task=task, regret=found.regret, flattery=found.bias, processes=found.summary.process_runs,
        seconds=curve.seconds[-1], curve=curve,
    )  # fmt: skip


def _replays(letter: str) -> Replays:
    if letter not in _REPLAYS:
        _REPLAYS[letter] = Replays(Landscape.load(LANDSCAPES / f"{letter}.json"))
    return _REPLAYS[letter]


def summarise(results: Sequence[Result], *, letters: Sequence[str], noises: Sequence[float]) -> dict[str, Any]:
    """Put one entry for each method together: by noise and landscape, and over all landscapes."""
    methods = list(dict.fromkeys(result.task.method for result in results))
    scores = score_all(results, letters)
    document: dict[str, Any] = {}
    for method in methods:
        by_noise = {}
        for noise in noises:
            of_noise = [one for one in results if one.task.method == method and one.task.noise == noise]
            by_noise[f"{noise:.0%}"] = {
                **figures(of_noise),
                "score": scores[method, noise],
                "landscapes": {
                    letter: figures([one for one in of_noise if one.task.landscape == letter]) for letter in letters
                },
            }
        document[method] = by_noise
    document["circumstances"] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_facts().machine_class,
        "versions": dict(machine_facts().versions),
        "landscapes": {letter: _replays(letter).landscape.name for letter in letters},
    }
    return document


def figures(results: Sequence[Result]) -> dict[str, Any]:
    """Give the figures of some studies of one method."""
    regrets = [one.regret for one in results]
    flattery = [one.flattery for one in results if one.flattery is not None]
    found: dict[str, Any] = {
        "studies": len(results),
        "regret_median": statistics.median(regrets),
        "regret_p95": float(np.percentile(regrets, 95)),
        "bias_mean": statistics.fmean(flattery) if flattery else None,
        "processes_max": max(one.processes for one in results),
        "processes_median": statistics.median(one.processes for one in results),
        "seconds_median": statistics.median(one.seconds for one in results),
    }
    for share in SHARES:
        runs = [one.curve.first_within(share, one.curve.processes) for one in results]
        seconds = [one.curve.first_within(share, one.curve.seconds) for one in results]
        found[f"runs_to_{share:.0%}"] = _finite(statistics.median(runs))
        found[f"seconds_to_{share:.0%}"] = _finite(statistics.median(seconds))
    return found


def _finite(value: float) -> float | None:
    """Give None for never: JSON has no infinity."""
    return value if np.isfinite(value) else None


def score_all(results: Sequence[Result], letters: Sequence[str]) -> dict[tuple[str, float], float]:
    """Give each method's mean share of the way from random search's curve to the optimum, over all landscapes."""
    keys = dict.fromkeys((one.task.method, one.task.noise) for one in results)
    scores: dict[tuple[str, float], list[float]] = {key: [] for key in keys}
    for letter in letters:
        truths = [entry.truth for entry in _replays(letter).landscape.entries if entry.truth]
        median_regret = 1 - statistics.median(truths) / max(truths)
        for (method, noise), found in scores.items():
            curves = {
                name: [
                    one.curve
                    for one in results
                    if (one.task.method, one.task.noise, one.task.landscape) == (name, noise, letter)
                ]
                for name in (method, "random")
            }
            times = np.linspace(0, _cut_off(curves["random"], median_regret), 101)[1:]
            baseline = _mean_regret(curves["random"], times, median_regret)
            own = _mean_regret(curves[method], times, median_regret)
            found.append(float(np.mean((baseline - own) / np.maximum(baseline, 1e-9))))
    return {key: statistics.fmean(found) for key, found in scores.items()}


def _cut_off(curves: Sequence[Curve], median_regret: float) -> float:
    """Give the seconds in which random search gets 95 % of the way from the median configuration to the optimum."""
    times = np.linspace(0, max(curve.seconds[-1] for curve in curves), 2001)
    within = np.flatnonzero(_mean_regret(curves, times, median_regret) <= 0.05 * median_regret)
    return float(times[within[0]] if len(within) else times[-1])


def _mean_regret(curves: Sequence[Curve], times: Any, before: float) -> Any:
    """Give the mean regret over time; before its first run a method has what a random configuration has."""
    rows = []
    for curve in curves:
        places = np.searchsorted(curve.seconds, times, side="right") - 1
        rows.append(np.where(places < 0, before, np.array(curve.regrets)[np.maximum(places, 0)]))
    return np.mean(rows, axis=0)


def print_table(document: dict[str, Any]) -> None:
    """Print one line for each method and noise."""
    print(f"{'method':<10}{'noise':>7}{'regret p95':>12}{'bias':>8}{'runs':>6}{'to 5 %':>8}{'to 2 %':>8}{'score':>8}")
    for method, by_noise in document.items():
        if method == "circumstances":
            continue
        for noise, one in by_noise.items():
            bias = "-" if one["bias_mean"] is None else f"{one['bias_mean']:+.1%}"
            runs = [one[f"runs_to_{share:.0%}"] for share in SHARES]
            shown = "".join(f"{'never' if count is None else f'{count:.0f}':>8}" for count in runs)
            print(
                f"{method:<10}{noise:>7}{one['regret_p95']:>12.1%}{bias:>8}{one['processes_median']:>6.0f}{shown}"
                f"{one['score']:>8.2f}"
            )


if __name__ == "__main__":
    sys.exit(main())
