"""How fast each data system loads: with its documented settings, PyTorch's default, MONAI, and as autotune resolves it.

    python studies/benchmarks/data_systems.py --record                       # all of them, about half an hour
    python studies/benchmarks/data_systems.py --systems images text --json
    python studies/benchmarks/data_systems.py --quick --json                 # one of them, about a minute

Every system loads what its study file in studies/ draws, at the batch size that its documents recommend. Autotune tunes
it for some time at that batch size; then all loaders are timed by one clock that is none of autotune's, each run
in an interpreter of its own, in blocks of random order. MONAI's datasets stand where samples are images.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

from data_systems_report import write_records
from rich.console import Console
from rivals_blocks import RunFailedError, ask
from rivals_contenders import places_in

from autotune.compose import tune_study
from autotune.home import lock_file
from autotune.machine import installed_versions, machine_facts
from autotune.ratios import ratio_interval
from autotune.spec import LoaderConfig, StudySpec
from autotune.spec.study_file import read_study, spec_from_fields
from autotune.study.lock import machine_lock

STUDIES = Path(__file__).resolve().parent.parent
RECORDS = STUDIES / "records"
_CLOCK = Path(__file__).with_name("data_systems_clock.py")
_PATIENCE_S = 900.0


@dataclass(frozen=True, kw_only=True)
class System:
    """A data system and the settings that its documents recommend.

    Attributes:
        study: Name of its study file.
        title: What it loads.
        batch_size: Recommended batch size, that of every loader here.
        num_workers: Recommended workers.
        source: Where that stands.
        images: Whether MONAI's datasets apply.
    """

    study: str
    title: str
    batch_size: int
    num_workers: int
    source: str
    images: bool


SYSTEMS = (
    System(study="forest_gaps", title="canopy heights with gap masks, GeoTIFF 256x256", batch_size=16, num_workers=4,
           source="seed 0, example 2", images=True),
    System(study="vae_tif", title="single TIF, resized to 256x256", batch_size=8, num_workers=4,
           source="seed 3, defaults of create_vae_dataloaders", images=True),
    System(study="ldm_tif", title="pairs of TIF, resized to 256x256", batch_size=8, num_workers=4,
           source="seed 3, defaults of create_ldm_dataloaders", images=True),
    System(study="cityscapes_keras", title="street scenes with 8 categories", batch_size=16, num_workers=4,
           source="seed 1, model.fit example", images=True),
    System(study="images", title="photographs, 224x224, normalised", batch_size=32, num_workers=4,
           source="seed 4, basic image loading", images=True),
    System(study="text", title="lines as token ids", batch_size=16, num_workers=2,
           source="seed 4, advanced text loading", images=False),
    System(study="hdf5", title="rows of an HDF5 file", batch_size=64, num_workers=8,
           source="seed 4, HDF5 loading", images=False),
)  # fmt: skip

OURS = "autotune"
TITLES: Mapping[str, str] = {
    OURS: "autotune, as resolved",
    "recommended": "documented settings",
    "pytorch_default": "PyTorch default",
    "monai_thread_cache": "MONAI CacheDataset, ThreadDataLoader",
    "monai_cache": "MONAI CacheDataset, documented workers",
    "monai_persistent": "MONAI PersistentDataset, documented workers",
}
"""Contenders by their key in the document."""


def rows_of(system: System, ours: LoaderConfig) -> dict[str, dict[str, Any]]:
    """Give what is timed for a system, by contender."""
    recommended = plain(system.batch_size, system.num_workers)
    rows: dict[str, dict[str, Any]] = {
        OURS: {"config": ours.model_dump()},
        "recommended": {"config": recommended},
        "pytorch_default": {"config": plain(system.batch_size, 0)},
    }
    if system.images:
        rows["monai_thread_cache"] = {"config": plain(system.batch_size, 0), "monai": "thread_cache"}
        rows["monai_cache"] = {"config": recommended, "monai": "cache"}
        rows["monai_persistent"] = {"config": recommended, "monai": "persistent"}
    return rows


def plain(batch_size: int, num_workers: int) -> dict[str, Any]:
    """Give a configuration that turns nothing but the number of workers."""
    config = LoaderConfig(batch_size=batch_size, num_workers=num_workers)
    return config.canonical(has_accelerator=False).model_dump()


def study_of(system: System, seconds: float, seed: int) -> StudySpec:
    """Give a system's study with the batch size that its documents recommend, loaded by torch's DataLoader."""
    spec = read_study(STUDIES / f"{system.study}.yaml")
    fields = {
        "name": system.study,
        "dataset": spec.dataset.model_dump(exclude_none=True),
        "budget": f"{seconds:g}s",
        "device": "cpu",
        "space": {"batch_size": [system.batch_size]},
        "seed": seed,
    }
    return spec_from_fields(fields)


class Benchmark:
    """One run of everything.

    Args:
        options: What was asked for.
        work: Folder of homes and archives.
        console: Told how far it is.
    """

    def __init__(self, options: argparse.Namespace, work: Path, console: Console) -> None:
        self._options = options
        self._work = work
        self._console = console
        self.document: dict[str, Any] = {key: {"title": title, "results": []} for key, title in TITLES.items()}
        self.document["systems"] = []

    def run(self, systems: Sequence[System]) -> None:
        """Tune and time every system."""
        for system in systems:
            spec = study_of(system, self._options.tuning_seconds, self._options.seed)
            home = self._work / "homes" / system.study
            home.mkdir(parents=True)
            at = places_in(home)
            self._console.print(f"{system.study}: tuning for {self._options.tuning_seconds:g} s", style="dim")
            started_s = time.monotonic()
            summary = tune_study(spec, at=at)
            tuning_s = time.monotonic() - started_s
            rows = rows_of(system, summary.best)
            rates, failed = self._time(spec, rows, home)
            self._note(system, rows, rates, failed)
            self.document["systems"].append({
                "study": system.study, "title": system.title, "batch_size": system.batch_size,
                "recommended": {"num_workers": system.num_workers, "source": system.source},
                "outcome": summary.outcome, "best": summary.best.label(), "tuning_s": tuning_s,
                "processes": summary.process_runs, "notes": list(summary.notes),
            })  # fmt: skip
            shutil.rmtree(home, ignore_errors=True)

    def _time(
        self, spec: StudySpec, rows: Mapping[str, dict[str, Any]], home: Path
    ) -> tuple[dict[str, dict[int, float]], dict[str, str]]:
        """Clock every row once in each block."""
        shared = {
            "dataset": {"factory": spec.dataset.factory, "arguments": dict(spec.dataset.arguments)},
            "consumer": {"kind": "loader"},
            "home": str(home),
            "seconds": self._options.seconds,
        }
        rates: dict[str, dict[int, float]] = {key: {} for key in rows}
        failed: dict[str, str] = {}
        for block, key in self._turns(rows):
            if key in failed:
                continue
            try:
                found = ask(_CLOCK, {**shared, **rows[key], "seed": block}, timeout_s=_PATIENCE_S)
            except RunFailedError as error:
                failed[key] = str(error)
                self._console.print(f"{spec.name}: {TITLES[key]} failed: {error}", style="red")
            else:
                rates[key][block] = found["samples_per_s"]
        return rates, failed

    def _turns(self, rows: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
        order = random.Random(self._options.seed)
        for block in range(self._options.blocks):
            for key in order.sample(list(rows), len(rows)):
                yield block, key

    def _note(
        self,
        system: System,
        rows: Mapping[str, dict[str, Any]],
        rates: Mapping[str, Mapping[int, float]],
        failed: Mapping[str, str],
    ) -> None:
        for key, row in rows.items():
            both = sorted(rates[OURS].keys() & rates[key].keys())
            mine, theirs = [rates[OURS][block] for block in both], [rates[key][block] for block in both]
            ratio = ratio_interval(mine, theirs) if key != OURS else None
            self.document[key]["results"].append({
                "system": system.study,
                "config": LoaderConfig.model_validate(row["config"]).label(),
                "samples_per_s": fmean(rates[key].values()) if rates[key] else None,
                "rates": list(rates[key].values()),
                "ratio": ratio.model_dump() if ratio else None,
                "failed": failed.get(key),
            })  # fmt: skip
            shown = f"{ratio.mean:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "-"
            mean = f"{fmean(rates[key].values()):,.0f}" if rates[key] else "failed"
            self._console.print(f"{system.study}: {TITLES[key]}: {mean} samples/s, autotune over it {shown}")


def main() -> None:
    """Tune, time, and write what came of it."""
    options = _options()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    console = Console(stderr=True)
    chosen = [system for system in SYSTEMS if system.study in options.systems]
    started_at, load = datetime.now(UTC), os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="systems-") as work, machine_lock("data systems", path=lock_file()):
        benchmark = Benchmark(options, Path(work), console)
        benchmark.run(chosen)
    document = {
        **benchmark.document,
        "circumstances": {
            "at": started_at.isoformat(timespec="seconds"),
            "took_s": (datetime.now(UTC) - started_at).total_seconds(),
            "machine": machine_facts(accelerator=False).machine_class,
            "versions": {**installed_versions(), "monai": metadata.version("monai")},
            "load_average": [load[0], os.getloadavg()[0]],
            **{name: getattr(options, name) for name in ("tuning_seconds", "blocks", "seconds", "seed")},
        },
    }
    if options.record:
        for path in write_records(document, RECORDS):
            console.print(f"written: {path}")
    with answers:
        if options.json:
            answers.write(json.dumps(document, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [system.study for system in SYSTEMS]
    parser.add_argument("--systems", nargs="+", choices=names, default=names, help="study files; all by default")
    parser.add_argument("--tuning-seconds", type=float, default=45.0, help="time for tuning each (default: 45)")
    parser.add_argument("--blocks", type=int, default=5, help="runs of each loader, at least 2 (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.5, help="least time of a run's epochs (default: 1.5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all orders (default: 0)")
    parser.add_argument("--quick", action="store_true", help="text alone, short, to see that all works")
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    parser.add_argument("--record", action="store_true", help="write JSON, Markdown and plot to studies/records")
    options = parser.parse_args()
    if options.quick:
        options.systems, options.tuning_seconds, options.blocks, options.seconds = ["text"], 12.0, 2, 0.5
    if options.blocks < 2:
        parser.error(f"an interval needs at least 2 blocks, got --blocks {options.blocks}")
    return options


if __name__ == "__main__":
    sys.exit(main())
