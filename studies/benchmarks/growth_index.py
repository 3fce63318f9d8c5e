"""Growth of an archive's index: building, opening and reading a tar, and the memory of workers, by its members.

Each round is a process of its own (`python growth_index.py ARCHIVE WORKERS START`), which tells one JSON document.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from growth_scale import Scale, course, growth
from overheads_figures import Entry
from torch.utils.data import DataLoader, Dataset

from autotune.data.archives import FORMATS
from autotune.measure.host import tree_pss_bytes
from autotune.units import MIB

FORMAT = "tar"
STARTS = ("fork", "forkserver")
"""How workers come to be: Linux' way until Python 3.13, and since."""
_BATCH_SIZE, _BATCHES = 32, 40
_SAMPLES = _BATCH_SIZE * _BATCHES


class Numbers(Dataset[torch.Tensor]):
    """Small samples, so that the index is what an archive of them consists of.

    Args:
        length: How many.
    """

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((4,), float(index))


def measure_index(scale: Scale, work: Path) -> dict[str, Entry]:
    """Build archives of all sizes, and open each in fresh processes that take turns."""
    folders: dict[int, Path] = {}
    built_us: dict[int, list[float]] = {size: [] for size in scale.members}
    for number in range(scale.builds):
        for size in scale.members:
            folders[size] = work / f"{size}-{number}"
            folders[size].mkdir()
            started_s = time.perf_counter()
            FORMATS[FORMAT].build(Numbers(size), folders[size])
            built_us[size].append(1e6 * (time.perf_counter() - started_s) / size)
            if number:
                shutil.rmtree(work / f"{size}-{number - 1}")
    found: dict[str, dict[int, list[dict[str, float]]]] = {
        start: {size: [] for size in scale.members} for start in STARTS
    }
    order = random.Random(0)
    for number in range(scale.opens + 1):
        for start in STARTS:
            for size in order.sample(scale.members, len(scale.members)):
                told = _told(folders[size], scale.workers, start)
                if number:  # the first round brings the files into the page cache
                    found[start][size].append(told)
    return _entries(found, built_us)


def _entries(found: dict[str, dict[int, list[dict[str, float]]]], built_us: dict[int, list[float]]) -> dict[str, Entry]:
    opened: dict[int, list[float]] = {}
    read: dict[int, list[float]] = {}
    for size in built_us:
        every = [one for start in STARTS for one in found[start][size]]
        opened[size] = [one["open_ms"] for one in every]
        read[size] = [one["sample_us"] for one in every]
    largest = sorted(built_us)[-2:]
    for_each = {size: [1000 * ms / size for ms in opened[size]] for size in largest}
    return {
        "open": course(opened, unit="ms"),
        "open_each": growth(for_each, unit="µs a member"),
        "build_each": course(built_us, unit="µs a member"),
        "sample": growth(read, unit="µs a sample"),
        **{
            f"worker_{start}": course(
                {size: [one["worker_mib"] for one in told] for size, told in found[start].items()}, unit="MiB a worker"
            )
            for start in STARTS
        },
        **{
            f"tree_{start}": course(
                {size: [one["tree_mib"] for one in told] for size, told in found[start].items()}, unit="MiB together"
            )
            for start in STARTS
        },
    }


def _told(folder: Path, workers: int, start: str) -> dict[str, float]:
    words = [sys.executable, __file__, str(folder), str(workers), start]
    root = str(Path(__file__).resolve().parents[2])
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(words, env=environ, check=True, capture_output=True, text=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _look(folder: Path, workers: int, start: str) -> dict[str, float]:
    """Open an archive, read some of its samples here and some by workers, and weigh these while they live."""
    torch.set_num_threads(1)
    begun_s = time.perf_counter()
    archive = FORMATS[FORMAT].open(folder)
    open_s = time.perf_counter() - begun_s
    length = len(archive)  # type: ignore[arg-type]
    places = [random.Random(0).randrange(length) for _ in range(_SAMPLES)]
    _ = archive[0]
    begun_s = time.perf_counter()
    for place in places:
        _ = archive[place]
    sample_s = (time.perf_counter() - begun_s) / len(places)
    loader: DataLoader[Any] = DataLoader(
        archive, sampler=places, batch_size=_BATCH_SIZE, num_workers=workers, multiprocessing_context=start
    )
    batches = iter(loader)
    for _ in range(_BATCHES // 2):  # the rest keeps the workers alive
        next(batches)
    each = [tree_pss_bytes(process.pid or 0) or 0 for process in multiprocessing.active_children()]
    together = tree_pss_bytes(os.getpid()) or 0
    return {
        "open_ms": 1000 * open_s,
        "sample_us": 1e6 * sample_s,
        "worker_mib": sum(each) / len(each) / MIB,
        "tree_mib": together / MIB,
    }


if __name__ == "__main__":
    print(json.dumps(_look(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
