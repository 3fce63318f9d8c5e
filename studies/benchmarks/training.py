"""How long a training takes with each loader: to a given IoU of validation, and for all of its epochs.

    python studies/benchmarks/training.py --record                     # three quarters of an hour on two cores
    python studies/benchmarks/training.py --models small --blocks 3 --json
    python studies/benchmarks/training.py --quick --json               # to see that all works, some minutes

A U-Net learns to find gaps in tiles of canopy heights, pairs of GeoTIFF files: of real rasters where they lie beside
the project (`--data`), else generated. The loader is autotune's after a study with this training step, autotune's that
finds its settings while training, PyTorch's default, or seed 0's example (4 workers), always with batches of 16, which
that example has. Each training is a process of its own, in blocks of random order, with the same seeds: all losses must
be the same to the last bit, or the benchmark fails. So must those of a training that is broken off within an epoch and
goes on in another process. The time of the study stands apart.

Every process takes as many threads as torch chooses; `OMP_NUM_THREADS` sets another number, which is recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rivals_blocks import ask
from rivals_contenders import places_in
from training_clock import LOADERS
from training_data import GAP_HEIGHT_M, REAL_DATA, write_source
from training_figures import OURS, figures_of, losses_of
from training_report import write_records

from autotune.compose import tune_study
from autotune.home import lock_file
from autotune.machine import installed_versions, machine_facts
from autotune.spec import StudySpec
from autotune.spec.study_file import spec_from_fields
from autotune.study.lock import machine_lock

RECORDS = Path(__file__).resolve().parent.parent / "records"
MODELS: Mapping[str, Mapping[str, int]] = {
    "small": {"width": 4, "depth": 1},
    "reference": {"width": 8, "depth": 3},
}
"""Arguments of the U-Net: one whose step takes little more than loading, and one whose step takes most of the time."""

_CLOCK = Path(__file__).with_name("training_clock.py")
_PATIENCE_S = 1800.0


class LossesDifferError(Exception):
    """Trainings that must have the same losses have not."""


class Benchmark:
    """One run of everything.

    Args:
        options: What was asked for.
        work: Folder of homes, tiles and checkpoints.
        console: Told how far it is.
    """

    def __init__(self, options: argparse.Namespace, work: Path, console: Console) -> None:
        self._options = options
        self._work = work
        self._console = console
        tiles = 100 if options.quick else 1000
        self.data = write_source(options.data, work=work, stride=options.stride, tiles=tiles)

    def run(self) -> dict[str, Any]:
        """Compare the loaders with each model, and go on from a checkpoint with the first one."""
        models = {name: self._compared(name) for name in self._options.models}
        return {"models": models, "resumed": self._resumed(self._options.models[0])}

    def _compared(self, name: str) -> dict[str, Any]:
        spec, home = self._study(name), self._home(name)
        self._console.print(f"{name}: tuning for {self._options.tuning_seconds:g} s", style="dim")
        started_s = time.monotonic()
        summary = tune_study(spec, at=places_in(home))
        tuning_s = time.monotonic() - started_s
        self._console.print(f"{name}: {summary.outcome}, {summary.best.label()}")
        runs: dict[str, list[dict[str, Any]]] = {loader: [] for loader in LOADERS}
        for loader in self._turns():
            found = self._train(name, loader)
            runs[loader].append(found)
            self._console.print(
                f"{name}: {loader}: {found['ended_s'][-1]:.1f} s, IoU {found['val_iou'][-1]:.3f}, "
                f"waiting {found['data_wait_share'][-1]:.1%}"
            )
            check_same(found, runs[loader][0], of=f"{loader}, run {len(runs[loader])}", like=f"{loader}, run 1")
        for loader, found in runs.items():
            check_same(found[0], runs[OURS][0], of=loader, like=OURS)
        tuned = {"outcome": summary.outcome, "best": summary.best.label(), "wall_s": tuning_s}
        tuned |= {"why": summary.why, "notes": list(summary.notes)}
        return {"model": dict(MODELS[name]), "tuning": tuned, **figures_of(runs, iou=self._options.iou)}

    def _study(self, name: str) -> StudySpec:
        """Give the study that finds the loader: with this step, at this batch size."""
        return spec_from_fields({
            "name": f"training-{name}",
            "dataset": {"factory": "training_data:training_part", "arguments": self.data},
            "consumer": {
                "step": {
                    "factory": "autotune.training.steps:threshold_unet_step",
                    "arguments": {**MODELS[name], "thresholds": [GAP_HEIGHT_M], "learning_rate": 3e-3},
                }
            },
            "device": "cpu",
            "budget": f"{self._options.tuning_seconds:g}s",
            "space": {"batch_size": [self._options.batch_size]},
            "seed": self._options.seed,
        })  # fmt: skip

    def _turns(self) -> Iterator[str]:
        order = random.Random(self._options.seed)
        for _ in range(self._options.blocks):
            yield from order.sample(list(LOADERS), len(LOADERS))

    def _train(self, name: str, loader: str, **more: Any) -> dict[str, Any]:
        """Train once, in an interpreter of its own."""
        empty = self._work / "empty"
        empty.mkdir(exist_ok=True)
        request = {
            "data": self.data,
            "model": MODELS[name],
            "loader": loader,
            "epochs": self._options.epochs,
            "online_epochs": self._options.online_epochs,
            "batch_size": self._options.batch_size,
            "seed": self._options.seed,
            "home": str(self._home(name)),
            "empty_home": str(empty),
            **more,
        }
        found: dict[str, Any] = ask(_CLOCK, request, timeout_s=_PATIENCE_S)
        return found

    def _resumed(self, name: str) -> dict[str, Any]:
        """Break a training off within an epoch, go on in another process, and compare the losses of all batches."""
        whole = self._train(name, OURS)
        stop_at = [self._options.epochs // 2, whole["batches"] // 2]
        checkpoint = {"checkpoint": str(self._work / "broken_off.pt"), "stop_at": stop_at}
        first = self._train(name, OURS, **checkpoint)
        second = self._train(name, OURS, **checkpoint, resume=True)
        losses = [*first["batch_losses"], *second["batch_losses"]]
        joined = {**second, "batch_losses": losses}
        check_same(joined, whole, of="the resumed training", like="the uninterrupted one")
        self._console.print(
            f"resumed after batch {stop_at[1]} of epoch {stop_at[0]}: all {len(losses)} losses are equal"
        )
        return {
            "model": name,
            "broken_off_after": {"epoch": stop_at[0], "batch": stop_at[1], "batches": len(first["batch_losses"])},
            "uninterrupted": whole["batch_losses"],
            "resumed": losses,
            "identical": True,
        }

    def _home(self, name: str) -> Path:
        home = self._work / "homes" / name
        home.mkdir(parents=True, exist_ok=True)
        return home


def check_same(one: Mapping[str, Any], other: Mapping[str, Any], *, of: str, like: str) -> None:
    """Refuse losses that differ in any bit.

    Raises:
        LossesDifferError: They do; the message says where first.
    """
    for name, mine in losses_of(one).items():
        theirs = losses_of(other)[name]
        if mine == theirs:
            continue
        place = next((at for at, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]), None)
        told = f"{len(mine)} against {len(theirs)}" if place is None else f"{mine[place]!r} against {theirs[place]!r}"
        raise LossesDifferError(f"{name} of {of} must be those of {like}, got {told} at place {place}")


def main() -> None:
    """Tune, train, and write what came of it."""
    options = read_options()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    console = Console(stderr=True)
    started_at, load = datetime.now(UTC), os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="training-", dir=options.work) as work:
        with machine_lock("training benchmark", path=lock_file()):
            benchmark = Benchmark(options, Path(work), console)
            found = benchmark.run()
        title = benchmark.data["title"]
    document = {
        **found,
        "circumstances": {
            "at": started_at.isoformat(timespec="seconds"),
            "took_s": (datetime.now(UTC) - started_at).total_seconds(),
            "machine": machine_facts(accelerator=False).machine_class,
            "versions": dict(installed_versions()),
            "load_average": [load[0], os.getloadavg()[0]],
            "data": title,
            **{name: getattr(options, name) for name in _TOLD},
        },
    }
    if options.record:
        for path in write_records(document, RECORDS):
            console.print(f"written: {path}")
    with answers:
        if options.json:
            answers.write(json.dumps(document, indent=1) + "\n")


_TOLD = ("epochs", "online_epochs", "batch_size", "stride", "iou", "tuning_seconds", "blocks", "seed", "quick")


def read_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REAL_DATA, help=f"folder of real rasters (default: {REAL_DATA})")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="models; all by default")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each training (default: 5)")
    parser.add_argument("--online-epochs", type=int, default=2, help="epochs for tuning while training (default: 2)")
    parser.add_argument("--iou", type=float, default=0.55, help="IoU of validation to reach (default: 0.55)")
    parser.add_argument("--batch-size", type=int, default=16, help="batch size of all (default: 16)")
    parser.add_argument("--stride", type=int, default=16, help="pixels from tile to tile of real rasters (default: 16)")
    parser.add_argument("--tuning-seconds", type=float, default=60.0, help="time of each study (default: 60)")
    parser.add_argument("--blocks", type=int, default=4, help="trainings with each loader, at least 2 (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and orders (default: 0)")
    parser.add_argument("--work", type=Path, default=None, help="folder for everything while it runs")
    parser.add_argument("--quick", action="store_true", help="the small model on few tiles, 2 epochs and blocks")
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    parser.add_argument("--record", action="store_true", help="write JSON, Markdown and plot to studies/records")
    options = parser.parse_args(words)
    if options.quick:
        options.models, options.epochs, options.blocks = ["small"], 2, 2
        options.stride, options.tuning_seconds = 32, 12.0
    if options.blocks < 2:
        parser.error(f"an interval needs at least 2 blocks, got --blocks {options.blocks}")
    return options


if __name__ == "__main__":
    sys.exit(main())
