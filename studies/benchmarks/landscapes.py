"""Records landscapes: every configuration of a space on a real workload, in repeated interleaved runs.

    python studies/benchmarks/landscapes.py [A I C] [--repeats 3] [--seconds 0.6] [--work FOLDER]
    taskset -c 0 python studies/benchmarks/landscapes.py A C --other one_cpu

Each repeat runs every configuration once, in a random order of its own. It can be interrupted at any time and
started again: finished runs are kept in the work folder. What is complete goes to studies/records/landscapes/, and
with `--other` to a folder of that name below it: the same workloads on another class of machine, which an affinity or
a quota makes, with half of the samples, where they can be counted, and a smaller space.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archives_workloads import REAL_DATA, WORKLOADS, ArrayFiles, Place
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autotune.compose import Places, inspect_dataset, places, single_request
from autotune.space import Space
from autotune.spec import Failure, Inspection, LoaderConfig, StudySpec, TrialRecord
from autotune.spec.study_file import spec_from_fields
from autotune.study.lock import machine_lock
from autotune.trial import Landscape, LocalRunner

FOLDER = Path(__file__).resolve().parent.parent / "records" / "landscapes"

_WORKERS = {
    "num_workers": [0, 1, 2, 4],
    "prefetch_factor": [2, 4],
    "cache": ["none", "memory"],
    "cache_fraction": [1.0],
}


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One landscape that can be recorded.

    Attributes:
        title: What it is, for people to read.
        dataset: The study's dataset.
        space: The study's space.
    """

    title: str
    dataset: Mapping[str, Any]
    space: Mapping[str, Any]

    def elsewhere(self) -> Recording:
        """Give what is recorded on another class of machine: half of the samples, and fewer workers to choose from."""
        arguments, title = dict(self.dataset["arguments"]), self.title
        if "count" in arguments:
            arguments["count"] //= 2
            title = f"{title}, half of them"
        return Recording(
            title=title,
            dataset={**self.dataset, "arguments": arguments},
            space={**self.space, "num_workers": [0, 1, 2], "prefetch_factor": [2]},
        )


def make_arrays(folder: str, count: int) -> ArrayFiles:
    """Give small uint8 arrays, each in a file of its own, drawn where they are missing."""
    return WORKLOADS["C"].make(Place(work=Path(folder), real=REAL_DATA), count)  # type: ignore[return-value]


def recordings(work: Path) -> Mapping[str, Recording]:
    """Give what can be recorded, by its letter."""
    return {
        "A": Recording(
            title="400 pairs of 256 x 256 GeoTIFF (float32 LZW, uint8 masks)",
            dataset={"factory": "autotune.data.datasets.factories:forest_gaps", "arguments": {"count": 400}},
            space={
                **_WORKERS,
                "batch_size": [16, 32, 64],
                "archive": ["files", "tar", "npy"],
                "stored": ["decoded"],
                "decoder": ["rasterio_path", "tifffile"],
            },
        ),
        "I": Recording(
            title="320 JPEG photos to 160 x 160",
            dataset={
                "factory": "autotune.data.datasets.factories:image_folder",
                "arguments": {"folder": str(REAL_DATA / "images" / "pets"), "size": 160},
            },
            space={
                **_WORKERS,
                "batch_size": [16, 32, 64],
                "archive": ["files", "tar", "npy"],
                "stored": ["decoded"],
                "decoder": ["pil", "simplejpeg"],
            },
        ),
        "C": Recording(
            title="6,000 uint8 arrays 32 x 32 x 3",
            dataset={"factory": "landscapes:make_arrays", "arguments": {"folder": str(work), "count": 6000}},
            space={
                **_WORKERS,
                "batch_size": [32, 128, 512],
                "archive": ["files", "tar", "npy", "lmdb"],
                "stored": ["decoded"],
            },
        ),
    }


def main() -> None:
    """Record what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=["A", "I", "C"], help="letters of the workloads")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each configuration")
    parser.add_argument("--seconds", type=float, default=0.6, help="longest time in windows of one run")
    parser.add_argument("--work", type=Path, default=None, help="folder for data, archives and finished runs")
    parser.add_argument("--other", default=None, help="name of another class of machine that this is run on")
    options = parser.parse_args()
    at = places(options.work)
    for letter in options.workloads:
        recording = recordings(at.home / "data")[letter]
        name = f"landscape-{letter}"
        if options.other:
            recording, name = recording.elsewhere(), f"{name}-{options.other}"
        spec = spec_from_fields({
            "name": name, "dataset": recording.dataset, "space": recording.space, "budget": "1h",
            "confirm_time_cap_s": options.seconds,
        })  # fmt: skip
        landscape = record(spec, recording.title, at=at, repeats=options.repeats)
        save(landscape, letter, options.other)
        print(
            f"{letter}: {len(landscape.entries)} configurations, {options.repeats} repeats, run-to-run spread "
            f"{landscape.spread:.1%}, best {landscape.best.config.label()} at {landscape.best.truth:,.0f} samples/s"
        )


def save(landscape: Landscape, letter: str, other: str | None) -> None:
    """Write a landscape, that of another class of machine to a folder of its own."""
    folder = FOLDER / other if other else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    landscape.save(folder / f"{letter}.json")


def record(spec: StudySpec, title: str, *, at: Places, repeats: int) -> Landscape:
    """Run every configuration once a repeat, go on where an earlier call was cut off, and put it together."""
    kept = at.home / f"{spec.name}.jsonl"
    done = [TrialRecord.from_json(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    with machine_lock(f"recording {spec.name}", path=at.lock), LocalRunner() as runner:
        inspection = inspect_dataset(runner, spec, at=at)
        sizes = tuple(sorted(spec.space.batch_size or ()))
        profile = runner.probe(single_request(spec, LoaderConfig(), at=at).replace(probe_batch_sizes=sizes))
        if isinstance(profile, Failure):
            sys.exit(f"the probe of {spec.name} failed: {profile.message}")
        space = Space.of_study(spec, inspection)
        plan = [config for repeat in range(repeats) for config in shuffled(space.points, repeat)]
        with kept.open("a") as file, progress() as shown:
            task = shown.add_task(title, total=len(plan), completed=len(done))
            for config in plan[len(done) :]:
                found = runner.run(single_request(spec, config, at=at))
                file.write(f"{found.to_json()}\n")
                file.flush()
                done.append(found)
                shown.advance(task)
    landscape = Landscape.from_records(
        title,
        done,
        inspection=_without_host(inspection),
        space=spec.space,
        time_cap_s=spec.confirm_time_cap_s,
    )
    return landscape.replace(profile=profile)


def shuffled(points: Iterable[LoaderConfig], repeat: int) -> list[LoaderConfig]:
    """Give all configurations in the random order of one repeat."""
    ordered = sorted(points, key=LoaderConfig.label)
    random.Random(repeat).shuffle(ordered)
    return ordered


def progress() -> Progress:
    """Give a progress bar on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _without_host(inspection: Inspection) -> Inspection:
    """Leave out the name of the machine: the file is published."""
    return inspection.replace(machine=inspection.machine.replace(host="recorded"))


if __name__ == "__main__":
    main()
