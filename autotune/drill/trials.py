"""Faults of the process that measures: killed, hanging, reading what cannot be read, out of file descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from autotune.drill._base import NotHereError, promised
from autotune.drill.datasets import SHARED_MEMORY
from autotune.spec import DatasetSource, FailureKind, LoaderConfig, TrialRecord, TrialRequest, Workload
from autotune.trial import LocalRunner

_NOTICED_S = 10.0
"""A death is told within this time, in each of two attempts."""
_HANGING_S = 6.0
"""Time-out of the trial that hangs: enough to get to its fifth sample on a busy machine."""
_DESCRIPTORS = 64


def killed_worker(folder: Path) -> str:
    """Kill a worker of the loader by SIGKILL, and measure another trial after it (row 1)."""
    with _warm_runner(folder) as runner:
        record = runner.run(_request(folder, "SignalledWorker", num_workers=2, name="SIGKILL"))
        _failed(record, "crashed", attempts=2)
        promised("SIGKILL" in _told(record), f"the message was to name the signal, got {_told(record)}")
        promised(record.wall_s < 2 * _NOTICED_S, f"it took {record.wall_s:.0f} s to notice two deaths")
        return f"{_told(record)} within {record.wall_s / 2:.1f} s; {_next_one(runner, folder)}"


def hanging_worker(folder: Path) -> str:
    """Stop a worker of the loader by SIGSTOP (row 2)."""
    with _warm_runner(folder) as runner:
        record = runner.run(_request(folder, "SignalledWorker", num_workers=2, timeout_s=_HANGING_S, name="SIGSTOP"))
        _failed(record, "timed_out", attempts=1)
        left = [process for server in _servers() for process in server.children(recursive=True)]
        promised(not left, f"processes survive the trial: {left}")
        return f"{_told(record)}; no process is left; {_next_one(runner, folder)}"


def killed_trial(folder: Path) -> str:
    """Kill the process of a trial by SIGKILL while workers load for it (row 3)."""
    log = folder / "log"
    with _warm_runner(folder) as runner:
        record = runner.run(_request(folder, "KilledTrial", num_workers=2, log=str(log)))
        _failed(record, "crashed", attempts=2)
        killed = [line.split(" ", 1) for line in log.read_text().splitlines()]
        promised(len(killed) == record.attempts, f"{record.attempts} trials were to be killed, got {len(killed)}")
        left = [path for worker, _ in killed for path in SHARED_MEMORY.glob(f"torch_{worker}_*")]
        left += [path for _, temporary in killed if (path := Path(temporary)).exists()]
        promised(not left, f"the trial leaves {', '.join(map(str, left))}")
        told = "shared memory and temporary files are clean"
        return f"{_told(record)} after {record.attempts} attempts; {told}; {_next_one(runner, folder)}"


def unreadable_sample(folder: Path) -> str:
    """Cut a raster in half, and measure a dataset that holds it (row 12)."""
    data = folder / "data"
    arguments = {"root": str(data), "count": 4, "size": 64}
    source = DatasetSource(factory="autotune.data.datasets.factories:forest_gaps", arguments=arguments)
    with _warm_runner(folder) as runner:
        whole = runner.run(_request(folder, source))
        promised(whole.failure is None, f"the rasters cannot be read while they are whole: {_told(whole)}")
        bad = sorted(data.rglob("heights/*.tif"))[1]
        bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
        record = runner.run(_request(folder, source, num_workers=2))
        _failed(record, "bad_data", attempts=1)
        promised(bad.name in _told(record), f"the error does not name {bad}: {_told(record)}")
    return f"{_told(record)}; no rate was given"


def few_descriptors(folder: Path) -> str:
    """Leave a trial 64 file descriptors, and ask for more than these (row 17)."""
    if not hasattr(psutil, "RLIMIT_NOFILE"):
        raise NotHereError("limits of another process can be set on Linux alone")
    with _warm_runner(folder) as runner:
        for server in _servers():
            server.rlimit(psutil.RLIMIT_NOFILE, (_DESCRIPTORS, server.rlimit(psutil.RLIMIT_NOFILE)[1]))
        greedy = _request(folder, "Numbers", num_workers=8, batch_size=1, prefetch_factor=32, count=8192)
        record = runner.run(greedy)
        _failed(record, "file_descriptors", attempts=1)
        return f"{_told(record)}; {_next_one(runner, folder)}"


@contextmanager
def _warm_runner(folder: Path) -> Iterator[LocalRunner]:
    """Start the server of trials, so that its seconds are none of a fault's."""
    with LocalRunner() as runner:
        runner.inspect(_request(folder, "Numbers"))
        yield runner


def _request(
    folder: Path, dataset: str | DatasetSource, *, timeout_s: float = 60.0, num_workers: int = 0, **settings: object
) -> TrialRequest:
    """Ask for a short trial of a dataset of `autotune.drill.datasets`, or of another source."""
    fields = {name: settings.pop(name) for name in ("batch_size", "prefetch_factor") if name in settings}
    config = LoaderConfig.model_validate({"batch_size": 2, "num_workers": num_workers, **fields})
    if isinstance(dataset, str):
        dataset = DatasetSource(factory=f"autotune.drill.datasets:{dataset}", arguments=settings)
    return TrialRequest(
        study="drill",
        workload=Workload(dataset=dataset, device="cpu"),
        config=config,
        archive_root=str(folder / "archives"),
        cache_root=str(folder / "cache"),
        time_cap_s=0.2,
        timeout_s=timeout_s,
    )


def _servers() -> list[psutil.Process]:
    """Give the trial servers that this process has started."""
    return [child for child in psutil.Process().children() if "autotune.trial.server" in child.cmdline()]


def _told(record: TrialRecord) -> str:
    failure = record.failure
    return "measured" if failure is None else f"{failure.kind}: {failure.message.splitlines()[0]}"


def _failed(record: TrialRecord, kind: FailureKind, *, attempts: int, phase: str = "measure") -> None:
    failure = record.failure
    promised(failure is not None and failure.kind == kind, f"the trial was to be {kind}, got {_told(record)}")
    promised(failure is None or failure.phase == phase, f"it was to fail in phase {phase}, got {failure}")
    promised(record.attempts == attempts, f"{attempts} attempts were to be made, got {record.attempts}")


def _next_one(runner: LocalRunner, folder: Path) -> str:
    record = runner.run(_request(folder, "Numbers"))
    promised(record.measurement is not None, f"the next trial fails too: {_told(record)}")
    return "the next trial was measured"
