"""How many runs a study saves by what others found on another class of machine, or for another dataset.

    python studies/benchmarks/transfer.py --quick
    python studies/benchmarks/transfer.py --seeds 60 --record
    python studies/benchmarks/transfer.py --json > transfer.json

A first study runs over one recorded landscape and leaves its records and its decision; a second one runs over another
landscape, once with them and once without. Nothing is measured: all rates come from studies/records/landscapes/ with
noise. A misleading first study is one over the inverted landscape, in which the fastest configuration is the slowest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

# the matrices of a study are small: BLAS threads of parallel studies would only wait for each other
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.progress import track

from autotune.machine import machine_facts
from autotune.similarity import Circumstances, similarity
from autotune.space.adapting import adapted
from autotune.spec import DatasetSource, Workload
from autotune.study.replayed import RecordsInMemory, Replayed, Replays
from autotune.trial import Landscape
from autotune.trial.landscape import inverted
from autotune.trial.noise import Noise

RECORDS = Path(__file__).resolve().parent.parent / "records"
LANDSCAPES = RECORDS / "landscapes"
SHARE = 0.05
FIRST_STUDIES = 5
"""First studies of each landscape and noise that the second ones take turns with: they draw noise, too."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A second study, and the first one that it may learn from.

    Attributes:
        title: What differs, for people.
        first: Landscape of the first study.
        second: Landscape of the second study.
        misleading: Whether the first one is inverted.
    """

    title: str
    first: str
    second: str
    misleading: bool = False


CASES = (
    Case(title="A, two CPUs to one", first="A", second="one_cpu/A"),
    Case(title="C, two CPUs to one", first="C", second="one_cpu/C"),
    Case(title="A, one CPU to two", first="one_cpu/A", second="A"),
    Case(title="C, one CPU to two", first="one_cpu/C", second="C"),
    Case(title="A to C, other samples", first="A", second="one_cpu/C"),
    Case(title="A misled", first="A", second="one_cpu/A", misleading=True),
    Case(title="C misled", first="C", second="one_cpu/C", misleading=True),
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One second study; those without a case begin with nothing, and serve all cases of their landscape."""

    second: str
    case: Case | None
    noise: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """What it came to.

    Attributes:
        task: Which.
        reached: Runs until the best so far was within 5 % of the optimum; infinite for never.
        stayed: Runs from which on it always was.
        regret: What the handed-out configuration loses.
        processes: Runs in all.
        regrets: True regret of the best so far after each run.
        notes: What the study said of its priors.
    """

    task: Task
    reached: float
    stayed: float
    regret: float
    processes: int
    regrets: tuple[float, ...]
    notes: tuple[str, ...]


def main() -> None:
    """Replay all cases with and without priors, print the table, and with `--record` keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=60, help="second studies of each case and noise, both ways")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.02, 0.04, 0.06], help="run-to-run noise")
    parser.add_argument("--quick", action="store_true", help="a few seeds at one noise")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--record", action="store_true", help="write table and plot to studies/records/")
    options = parser.parse_args()
    seeds, noises = (6, [0.04]) if options.quick else (options.seeds, options.noise)
    alone = [(second, None) for second in dict.fromkeys(case.second for case in CASES)]
    tasks = [
        Task(second=second, case=case, noise=noise, seed=seed)
        for noise in noises
        for second, case in [*alone, *((case.second, case) for case in CASES)]
        for seed in range(seeds)
    ]
    results = run_all(tasks)
    document = summarise(results, noises)
    if options.record:
        from transfer_report import write

        write(document, panels(results, sorted(noises)[len(noises) // 2]), RECORDS)
    print(json.dumps(document, indent=1)) if options.json else print_table(document)


def run_all(tasks: Sequence[Task]) -> list[Result]:
    """Replay in as many processes as there are CPUs."""
    shown = Console(stderr=True)
    with ProcessPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return list(track(pool.map(replay, tasks, chunksize=10), "replaying", total=len(tasks), console=shown))


def replay(task: Task) -> Result:
    """Run one second study."""
    known = first_study(task.case, task.noise, task.seed % FIRST_STUDIES) if task.case else None
    found = second_studies(task.second, known).run(task.seed, Noise(run_to_run=task.noise))
    within = [found.regret_of(step.config) <= SHARE for step in found.steps]
    return Result(
        task=task,
        reached=_first(found, lambda place: within[place]),
        stayed=_first(found, lambda place: all(within[place:])),
        regret=found.regret,
        processes=found.summary.process_runs,
        regrets=_by_run(found),
        notes=tuple(note for note in found.summary.notes if note.startswith("priors: ")),
    )


def _first(found: Replayed, holds: Callable[[int], bool]) -> float:
    return next((float(step.processes) for place, step in enumerate(found.steps) if holds(place)), float("inf"))


def _by_run(found: Replayed) -> tuple[float, ...]:
    """Give the true regret of the best so far after each run; before the first one, all is lost."""
    regrets = {step.processes: found.regret_of(step.config) for step in found.steps}
    last, filled = 1.0, []
    for run in range(1, max(regrets) + 1):
        last = regrets.get(run, last)
        filled.append(last)
    return tuple(filled)


@cache
def landscape_of(name: str, *, misleading: bool = False) -> Landscape:
    """Load a recorded landscape."""
    found = Landscape.load(LANDSCAPES / f"{name}.json")
    return inverted(found) if misleading else found


@cache
def first_study(case: Case, noise: float, number: int) -> RecordsInMemory:
    """Run one first study, and give what it left."""
    landscape = landscape_of(case.first, misleading=case.misleading)
    return Replays(landscape).left_by(1000 + number, Noise(run_to_run=noise))


@cache
def second_studies(name: str, known: RecordsInMemory | None) -> Replays:
    """Give the second studies over a landscape, after a first one."""
    return Replays(landscape_of(name), known=known)


def summarise(results: Sequence[Result], noises: Sequence[float]) -> dict[str, Any]:
    """Put the figures of each case together, by noise, with and without priors."""
    cases: dict[str, Any] = {}
    for case in CASES:
        cases[case.title] = {
            **likeness(case),
            "noise": {
                f"{noise:.0%}": {name: figures(found) for name, found in both_ways(results, case, noise).items()}
                for noise in noises
            },
            "said": next((note for one in results if one.task.case == case for note in one.notes), None),
        }
    here = machine_facts()
    return {
        "cases": cases,
        "circumstances": {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": here.machine_class,
            "versions": dict(here.versions),
            "landscapes": {name: _described(name) for case in CASES for name in (case.first, case.second)},
        },
    }


def both_ways(results: Iterable[Result], case: Case, noise: float) -> dict[str, list[Result]]:
    """Give the second studies of a case at one noise, without priors and with them."""
    found = [one for one in results if (one.task.second, one.task.noise) == (case.second, noise)]
    return {
        "alone": [one for one in found if one.task.case is None],
        "with priors": [one for one in found if one.task.case == case],
    }


def _described(name: str) -> str:
    found = landscape_of(name)
    when = f", recorded {found.recorded_at:%Y-%m-%d}" if found.recorded_at else ""
    return (
        f"{found.name} on {found.inspection.machine.machine_class}; {len(found.entries)} configurations, "
        f"runs differ by {found.spread:.0%}{when}"
    )


def likeness(case: Case) -> dict[str, Any]:
    """Say how like the two are, how far the true orders agree, and what the best there would lose here unmeasured."""
    first, second = landscape_of(case.first, misleading=case.misleading), landscape_of(case.second)
    space = second_studies(case.second, None).space
    best = adapted(first.best.config, there=first.inspection.machine, space=space)
    taken = second.truth(best) if best else None
    found = similarity(_circumstances(second), _circumstances(first))
    return {
        "similarity": found.value,
        "why": str(found),
        "order_agreement": _agreement(first, second),
        "loss_unmeasured": 1 - taken / (second.best.truth or 1.0) if taken else None,
    }


def _circumstances(landscape: Landscape) -> Circumstances:
    inspection = landscape.inspection
    workload = Workload(dataset=DatasetSource(type_name=inspection.dataset.type_name))
    return Circumstances(machine=inspection.machine, dataset=inspection.dataset, workload=workload)


def _agreement(first: Landscape, second: Landscape) -> float | None:
    """Give the share of pairs of configurations that have the same true order in both."""
    rated = [(entry.truth, second.truth(entry.config)) for entry in first.entries]
    pairs = list(combinations([(one, other) for one, other in rated if one and other], 2))
    same = sum((one[0] > two[0]) == (one[1] > two[1]) for one, two in pairs)
    return same / len(pairs) if pairs else None


def panels(results: Sequence[Result], noise: float) -> dict[str, dict[str, list[tuple[float, ...]]]]:
    """Give the true regret of the best so far, run by run, of each case at one noise."""
    return {
        f"{case.title}, noise {noise:.0%}": {
            name: [one.regrets for one in found] for name, found in both_ways(results, case, noise).items()
        }
        for case in CASES
    }


def figures(results: Iterable[Result]) -> dict[str, Any]:
    """Give the figures of the second studies of one case, one noise and one way."""
    found = list(results)
    return {
        "studies": len(found),
        "reached_median": _finite(statistics.median(one.reached for one in found)),
        "reached_p90": _finite(_p90([one.reached for one in found])),
        "stayed_median": _finite(statistics.median(one.stayed for one in found)),
        "stayed_p90": _finite(_p90([one.stayed for one in found])),
        "regret_median": statistics.median(one.regret for one in found),
        "regret_p95": float(np.percentile([one.regret for one in found], 95)),
        "processes_median": statistics.median(one.processes for one in found),
    }


def _p90(values: Sequence[float]) -> float:
    return float(np.percentile(values, 90, method="higher"))


def _finite(value: float) -> float | None:
    """Give None for never: JSON has no infinity."""
    return value if np.isfinite(value) else None


def print_table(document: dict[str, Any]) -> None:
    """Print one line for each case and noise: alone, and with priors."""
    print(f"{'case':<30}{'like':>5}{'noise':>6}   runs to 5 % (p90)          regret p95")
    for title, case in document["cases"].items():
        for noise, ways in case["noise"].items():
            alone, prior = ways["alone"], ways["with priors"]
            runs = " -> ".join(
                f"{_count(one['reached_median'])} ({_count(one['reached_p90'])})" for one in (alone, prior)
            )
            regrets = " -> ".join(f"{one['regret_p95']:.1%}" for one in (alone, prior))
            print(f"{title:<30}{case['similarity']:>5.2f}{noise:>6}   {runs:<27}{regrets}")


def _count(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main())
