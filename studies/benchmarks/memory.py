"""Whether what a study hands out keeps the memory limit: randomised studies with steps of all kinds of appetite.

    python studies/benchmarks/memory.py --studies 100 --record
    python studies/benchmarks/memory.py --quick --json

Each study draws a step (fixed and per-sample memory, how much both differ from batch to batch, how much an evaluation
pass takes) and a limit, tunes for a few seconds, and then trains with what was handed out while nothing stops it: with
the largest batches, and an evaluation pass. What it takes then is held against the limit. Real processes, CPU
instrument (anonymous memory of the consuming process).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console
from rich.progress import track

from autotune.compose import inspect_dataset, places
from autotune.machine import machine_facts
from autotune.space import Space
from autotune.spec import LoaderConfig, MemoryLimit, StudySpec, StudySummary
from autotune.spec.study_file import spec_from_fields
from autotune.study.optuna_store import sampler
from autotune.study.replayed import RecordsInMemory
from autotune.study.run import run_study
from autotune.study.setting import Setting
from autotune.trial import LocalRunner, SinglePool
from autotune.units import MIB, format_bytes

RECORDS = Path(__file__).resolve().parent.parent / "records"
BATCH_SIZES = [2, 4, 8, 16, 32, 64]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One drawn study.

    Attributes:
        fixed_mib: Memory of a step whatever the batch.
        per_sample_mib: Memory for each sample.
        jitter: How much more a batch may take, as a share, at random.
        evaluation: Memory of an evaluation pass over that of a step.
        limit_mib: The limit.
        seed: Seed of the study.
    """

    fixed_mib: float
    per_sample_mib: float
    jitter: float
    evaluation: float
    limit_mib: int
    seed: int

    @classmethod
    def draw(cls, seed: int) -> Case:
        """Draw a study in which some batch size of the space lies near the limit."""
        generator = random.Random(seed)
        fixed, per_sample = generator.uniform(0, 40), 10 ** generator.uniform(-0.7, 0.7)
        near = generator.choice(BATCH_SIZES[1:])
        limit = (fixed + per_sample * near) * generator.uniform(0.9, 2.5)
        return cls(
            fixed_mib=fixed,
            per_sample_mib=per_sample,
            jitter=generator.choice([0.0, 0.0, 0.02, 0.05]),
            evaluation=generator.choice([0.5, 1.0, 1.2]),
            limit_mib=max(8, round(limit)),
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a study handed out, and what that took."""

    case: Case
    outcome: str
    batch_size: int | None
    peak_bytes: int | None
    processes: int
    infeasible: int
    kept: bool


def main() -> int:
    """Run the studies; exit with 1 where one broke its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    parser.add_argument("--quick", action="store_true", help="three studies")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--record", action="store_true", help="write the tally to studies/records/")
    options = parser.parse_args()
    count = 3 if options.quick else options.studies
    seeds = range(options.first, options.first + count)
    with LocalRunner() as runner, tempfile.TemporaryDirectory() as folder:
        shown = track(seeds, "studies", console=Console(stderr=True))
        outcomes = [hand_out(Case.draw(seed), runner, Path(folder)) for seed in shown]
    document = tally(outcomes)
    if options.record:
        path = RECORDS / f"{datetime.now(UTC):%Y-%m-%d}-memory.json"
        path.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1) if options.json else text_of(document))
    return int(document["handed_out"]["broken"] > 0)


def hand_out(case: Case, runner: LocalRunner, folder: Path) -> Outcome:
    """Run one study, then train with what it handed out, unstopped."""
    spec = study_of(case)
    summary, setting = tuned(spec, runner, folder)
    if summary.outcome == "nothing_feasible":
        return _outcome(case, summary, peak=None, kept=True)
    request = setting.request(summary.best, phase="verify")
    unlimited = request.replace(workload=request.workload.replace(memory_limit=MemoryLimit(size_bytes=4 << 40)))
    record = runner.run(unlimited)
    measured = record.measurement
    if measured is None or measured.memory.device_peak_bytes is None:
        sys.exit(f"training with what study {case.seed} handed out failed: {record.failure}")
    peak = measured.memory.device_peak_bytes
    return _outcome(case, summary, peak=peak, kept=peak <= case.limit_mib * MIB)


def study_of(case: Case) -> StudySpec:
    """Write the study of a case: its consumer is the drawn step."""
    appetite = {name: getattr(case, name) for name in ("fixed_mib", "per_sample_mib", "jitter", "evaluation")}
    return spec_from_fields({
        "name": f"memory-{case.seed}",
        "dataset": {"factory": "memory_steps:make_dataset", "arguments": {}},
        "consumer": {"step": {"factory": "memory_steps:make_step", "arguments": {**appetite, "seed": case.seed}}},
        "budget": {"time": "8s", "trials": 7},
        "memory_limit": f"{case.limit_mib}MiB",
        "device": "cpu",
        "seed": case.seed,
        "time_cap_s": 0.1,
        "confirm_time_cap_s": 0.1,
        "space": {"batch_size": BATCH_SIZES, "num_workers": [0, 1], "prefetch_factor": [2], "archive": ["files"],
                  "cache": ["none"]},
    })  # fmt: skip


def tuned(spec: StudySpec, runner: LocalRunner, folder: Path) -> tuple[StudySummary, Setting]:
    """Run a study whose records live as long as this process."""
    inspection = inspect_dataset(runner, spec, at=places(folder))
    setting = Setting(
        run_key=spec.name,
        spec=spec,
        inspection=inspection,
        space=Space.of_study(spec, inspection),
        pool=SinglePool(runner),
        store=RecordsInMemory(),
        archive_root=folder / "archives",
        cache_root=folder / "cache",
        clock=time.monotonic,
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler(spec.seed))
    return run_study(setting, study), setting


def _outcome(case: Case, summary: StudySummary, *, peak: int | None, kept: bool) -> Outcome:
    best: LoaderConfig | None = None if peak is None else summary.best
    return Outcome(
        case=case,
        outcome=summary.outcome,
        batch_size=best.batch_size if best else None,
        peak_bytes=peak,
        processes=summary.process_runs,
        infeasible=summary.trials.infeasible,
        kept=kept,
    )


def tally(outcomes: list[Outcome]) -> dict[str, Any]:
    """Count what was handed out and what broke its limit."""
    handed = [one for one in outcomes if one.peak_bytes is not None]
    shares = sorted((one.peak_bytes or 0) / (one.case.limit_mib * MIB) for one in handed)
    return {
        "handed_out": {
            "studies": len(outcomes),
            "configurations": len(handed),
            "nothing_feasible": len(outcomes) - len(handed),
            "broken": sum(not one.kept for one in outcomes),
            "peak_share_of_limit_median": shares[len(shares) // 2] if shares else None,
            "peak_share_of_limit_max": shares[-1] if shares else None,
            "processes": sum(one.processes for one in outcomes),
            "infeasible_trials": sum(one.infeasible for one in outcomes),
        },
        "circumstances": {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine_facts().machine_class,
            "versions": dict(machine_facts().versions),
        },
        "studies": [asdict(one) for one in outcomes],
    }


def text_of(document: Mapping[str, Any]) -> str:
    """Write the tally for people."""
    found = document["handed_out"]
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in found.items()]
    broken = [one for one in document["studies"] if not one["kept"]]
    lines += [f"broken: {one['case']}, took {format_bytes(one['peak_bytes'])}" for one in broken]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
