"""Which loader each contender picks in the same time, and how fast every pick is by one neutral clock.

    python studies/benchmarks/rivals.py                                     # everything, about an hour
    python studies/benchmarks/rivals.py --quick --json                      # small arrays alone, two to three minutes
    python studies/benchmarks/rivals.py --workloads A --consumers step      # one task
    python studies/benchmarks/rivals.py --record --loadtune FOLDER          # with loadtune, kept in studies/records

Workloads: A (pairs of GeoTIFF), I (JPEG photos), C (small arrays); consumers: loader, emulated, and step for A.
loadtune comes from PyPI: pip install --no-deps --target FOLDER 'loadtune==0.3.*'. Without it, it is listed as absent.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rivals_blocks import Blocks, RunFailedError, draw
from rivals_contenders import (
    CONTENDERS,
    OURS,
    AbsentError,
    Contender,
    Ground,
    Pick,
    loadtune_version,
    study_of,
    timed,
)
from rivals_figures import Result, rates_of, result_of, verdict_of
from rivals_report import markdown, write_records
from rivals_workloads import CONSUMERS, LETTERS, SAMPLES, Task, tasks

from autotune.errors import AutotuneError
from autotune.home import lock_file
from autotune.machine import installed_versions, machine_facts
from autotune.space.priors import REFERENCE_BATCH_SIZE
from autotune.study.lock import machine_lock

RECORDS = Path(__file__).resolve().parent.parent / "records"
_USUAL: Mapping[str, Any] = {
    "workloads": list(LETTERS),
    "consumers": list(CONSUMERS),
    "tuning_seconds": 60.0,
    "blocks": 5,
    "seconds": 2.0,
    "samples": {},
}
_QUICK: Mapping[str, Any] = {
    "workloads": ["C"],
    "consumers": ["loader"],
    "tuning_seconds": 12.0,
    "blocks": 2,
    "seconds": 0.5,
    "samples": {"A": 120, "C": 2000},
}


class Benchmark:
    """One run of everything.

    Args:
        options: What was asked for.
        work: Folder of data, homes and archives.
        shown: Progress; drawn only between runs.
    """

    def __init__(self, options: argparse.Namespace, work: Path, shown: Progress) -> None:
        self._options = options
        self._work = work
        self._shown = shown
        self._machine = machine_facts(accelerator=False)
        self._order = random.Random(options.seed)
        self.document: dict[str, Any] = {
            **{each.key: {"title": each.title, "source": each.source, "results": []} for each in CONTENDERS},
            "tasks": [],
            "runs": [],
        }

    def run(self, chosen: Sequence[Task]) -> None:
        """Do every task."""
        for task in chosen:
            draw(task)
            picks = self._pick_all(task)
            self._clock(task, picks)

    def _pick_all(self, task: Task) -> dict[str, tuple[Pick, float]]:
        """Let every contender pick, in random order, so that none always has the machine at its warmest."""
        picks: dict[str, tuple[Pick, float]] = {}
        bar = self._shown.add_task(f"{task.name}: picking", total=len(CONTENDERS))
        spec = study_of(task, self._options.tuning_seconds, self._options.seed)
        for contender in self._order.sample(CONTENDERS, len(CONTENDERS)):
            self._tell(bar, f"{task.name}: {contender.title} is picking")
            ground = Ground(
                task=task,
                spec=spec,
                home=self._empty(f"homes/{task.name}-{contender.key}"),
                seconds=self._options.tuning_seconds,
                machine=self._machine,
                seed=self._options.seed,
                packages=self._options.loadtune,
            )
            found = self._pick(contender, ground)
            if found is not None:
                picks[contender.key] = found
                self._shown.console.print(
                    f"{task.name}: {contender.title} picked {found[0].setup.label()} in {found[1]:.0f} s", style="dim"
                )
            self._shown.advance(bar)
        self._shown.remove_task(bar)
        return picks

    def _pick(self, contender: Contender, ground: Ground) -> tuple[Pick, float] | None:
        entry = self.document[contender.key]
        started_s = time.monotonic()
        try:
            return timed(contender, ground)
        except AbsentError as error:
            entry["absent"] = str(error)
        except (RunFailedError, AutotuneError) as error:
            failed = {"failed": str(error), "tuning_s": time.monotonic() - started_s}
            entry["results"].append({"workload": ground.task.workload, "consumer": ground.task.consumer, **failed})
            self._shown.console.print(f"{ground.task.name}: {contender.title} failed: {error}", style="red")
        finally:
            shutil.rmtree(ground.home, ignore_errors=True)
        return None

    def _clock(self, task: Task, picks: Mapping[str, tuple[Pick, float]]) -> None:
        """Time every pick in interleaved blocks and note what that comes to."""
        setups = list(dict.fromkeys(pick.setup for pick, _ in picks.values()))
        home = self._work / "clock"
        blocks = Blocks(task, setups, home=home, seconds=self._options.seconds)
        bar = self._shown.add_task(f"{task.name}: building", total=self._options.blocks * len(setups))
        self._tell(bar, f"{task.name}: building the archives of {len(setups)} picks")
        blocks.prepare()
        self._tell(bar, f"{task.name}: timing {len(setups)} picks")
        runs = list(blocks.run(self._options.blocks, seed=self._options.seed, done=lambda: self._advance(bar)))
        self._shown.remove_task(bar)
        shutil.rmtree(home, ignore_errors=True)
        self._note(task, picks, runs, blocks)

    def _note(
        self, task: Task, picks: Mapping[str, tuple[Pick, float]], runs: Sequence[Mapping[str, Any]], blocks: Blocks
    ) -> None:
        ours = picks[OURS][0].setup if OURS in picks else None
        rates, named = rates_of(runs), {"workload": task.workload, "consumer": task.consumer}
        results: dict[str, Result] = {}
        for key, (pick, tuning_s) in picks.items():
            results[key] = result_of(pick, tuning_s, ours=ours, rates=rates, failed=blocks.failed)
            self.document[key]["results"].append({**named, **results[key]})
        verdict = verdict_of(results, CONTENDERS)
        self.document["tasks"].append({**named, "title": task.title, "verdict": verdict})
        self.document["runs"] += [{**named, **run, "setup": run["setup"].label()} for run in runs]
        self._shown.console.print(f"{task.name}: autotune's pick: {verdict['verdict']}, {verdict['why']}", style="bold")

    def _empty(self, name: str) -> Path:
        folder = self._work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _tell(self, bar: Any, text: str) -> None:
        self._shown.update(bar, description=text)
        self._shown.refresh()

    def _advance(self, bar: Any) -> None:
        self._shown.advance(bar)
        self._shown.refresh()


def main() -> None:
    """Let everybody pick, time the picks, and write what came of it."""
    options = _options()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    work = options.work or Path(tempfile.mkdtemp(prefix="rivals-"))
    work.mkdir(parents=True, exist_ok=True)
    chosen = list(tasks(options.workloads, options.consumers, samples=options.samples, data=work / "data"))
    started_at, load = datetime.now(UTC), os.getloadavg()
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        # drawn when told to: a thread that redraws would take CPU time from what is timed
        with (
            machine_lock("the rivals benchmark", path=lock_file()),
            Progress(*columns, console=console, auto_refresh=False, transient=True) as shown,
        ):
            benchmark = Benchmark(options, work, shown)
            benchmark.run(chosen)
    except (AutotuneError, RunFailedError) as error:
        raise SystemExit(f"rivals.py: {error}") from error
    finally:
        if options.work is None:
            shutil.rmtree(work, ignore_errors=True)
    document = {
        "benchmark": "rivals",
        "at": started_at.isoformat(timespec="seconds"),
        "took_s": (datetime.now(UTC) - started_at).total_seconds(),
        "batch_size": REFERENCE_BATCH_SIZE,
        **{name: getattr(options, name) for name in ("tuning_seconds", "blocks", "seconds", "samples", "seed")},
        "machine": machine_facts(accelerator=False).model_dump(mode="json"),
        "versions": _versions(options.loadtune),
        "load_average_before": load,
        "load_average_after": os.getloadavg(),
        **benchmark.document,
    }
    if options.record:
        for path in write_records(document, RECORDS):
            console.print(f"written: {path}")
    with answers:
        answers.write(json.dumps(document, indent=1) + "\n" if options.json else markdown(document))


def _versions(packages: Path | None) -> dict[str, str]:
    found = {**installed_versions(), "optuna": metadata.version("optuna")}
    loadtune = loadtune_version(packages)
    return {**found, "loadtune": loadtune} if loadtune else found


def _samples(text: str) -> tuple[str, int]:
    letter, _, count = text.partition("=")
    if letter not in SAMPLES or not count.isdecimal() or not int(count):
        known = " or ".join(f"{name}=COUNT" for name in SAMPLES)
        raise argparse.ArgumentTypeError(f"samples are given as {known}, got {text!r}")
    return letter, int(count)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=_USUAL["workloads"], help="letters (default: all)")
    parser.add_argument("--consumers", nargs="+", choices=_USUAL["consumers"], help="default: all")
    parser.add_argument("--tuning-seconds", type=float, help="time of each contender for its pick (default: 60)")
    parser.add_argument("--blocks", type=int, help="runs of each pick by the neutral clock, at least 2 (default: 5)")
    parser.add_argument("--seconds", type=float, help="least time of the clocked epochs of a run (default: 2)")
    parser.add_argument("--samples", type=_samples, nargs="+", help="A=COUNT, C=COUNT (default: A=400 C=6000)")
    parser.add_argument("--loadtune", type=Path, help="folder that loadtune was installed to (default: this Python's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all orders and of what is drawn (default: 0)")
    parser.add_argument("--work", type=Path, help="folder of the data that is drawn, kept (default: a temporary one)")
    parser.add_argument("--quick", action="store_true", help="a small run in a few minutes, to see that all works")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--record", action="store_true", help="write JSON, Markdown and plot to studies/records")
    options = parser.parse_args()
    if options.samples:
        options.samples = dict(options.samples)
    for name, value in (_QUICK if options.quick else _USUAL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.blocks < 2:
        parser.error(f"an interval needs at least 2 blocks, got --blocks {options.blocks}")
    if options.tuning_seconds <= 0 or options.seconds <= 0:
        parser.error("--tuning-seconds and --seconds must be above 0")
    return options


if __name__ == "__main__":
    main()
