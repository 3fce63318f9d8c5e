"""One measurement, one process: forked for it, measured with autotune's own core, and ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import shutil
import signal
import subprocess
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from archives_setting import Row, Setting, Written, scanned_samples
from torch.utils.data import Subset

from autotune.data.archives import FORMATS
from autotune.measure.batches import SampleCounter
from autotune.measure.consumers import loader_consumer
from autotune.measure.contention import ContentionMeter
from autotune.measure.pagecache import prepare_page_cache
from autotune.measure.throughput import Plan, measure_throughput
from autotune.measure.window import counted, rate_interval

State = Literal["warm", "cold"]
_WHOLE_EPOCH_BATCHES = 1 << 40
"""Batches that the core lets pass before windows inside an epoch: more than there are, so windows are whole epochs."""
_ONE_WINDOW_S = 1e-9
_WARM_UP_S = 0.5
"""Longest warm-up without workers; the rivals' script has the same."""


class RunFailedError(Exception):
    """A measurement, build or check could not be made."""


# Processes


def in_fork(call: Callable[[], Any], timeout_s: float) -> Any:
    """Call something in a forked process of its own, killed with its children when the time is over.

    Raises:
        RunFailedError: It failed, died or took too long.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(call, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(timeout_s):
            raise RunFailedError(f"took more than {timeout_s:.0f} s")
        done, answer = ours.recv()
    except EOFError as error:
        raise RunFailedError("the process died") from error
    finally:
        _end_group(process)
    if not done:
        raise RunFailedError(str(answer))
    return answer


def _answer(call: Callable[[], Any], connection: Connection) -> None:
    os.setsid()
    try:
        answer = (True, call())
    except BaseException as error:  # noqa: BLE001 - the record says it
        traceback.print_exc()
        answer = (False, f"{type(error).__name__}: {error}")
    connection.send(answer)


def _end_group(process: Any) -> None:
    process.join(2.0)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


class Rivals:
    """The server of `archives_rivals.py`, run by another environment's Python."""

    def __init__(self, python: Path) -> None:
        self._command = [os.fspath(python), os.fspath(Path(__file__).with_name("archives_rivals.py"))]
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> Any:
        """Have one request done.

        Raises:
            RunFailedError: It failed or took too long.
        """
        process = self._started()
        if process.stdin is None or process.stdout is None:
            raise RunFailedError("the rivals' process has no pipes")
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            readable, _, _ = select.select([process.stdout], [], [], timeout_s)
            line = process.stdout.readline() if readable else b""
        except OSError as error:
            self.close()
            raise RunFailedError(f"the rivals' process ended: {error}") from error
        if not line:
            self.close()
            raise RunFailedError(f"took more than {timeout_s:.0f} s" if not readable else "the rivals' process ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RunFailedError(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        """End the server and what it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": ""},
            )
        return self._process


# Rates


def measure(row: Row, setting: Setting, state: State, workers: int) -> dict[str, Any]:
    """Measure one row in this process: windows of whole epochs, after a warm-up unless the question is a cold one."""
    loader = row.loader(setting, workers) if row.loader else ()
    around = _Around(row.files(setting) if row.files else [], state)
    expected = epoch_samples(row, setting)
    samples_of = SampleCounter(setting.batch)
    found = measure_throughput(
        _FirstPass(loader, state, workers),
        consume=loader_consumer(torch.device("cpu")),
        count=lambda batch, _: 1 if batch is None else samples_of.or_full(batch),
        plan=Plan(
            time_cap_s=_ONE_WINDOW_S if state == "cold" else setting.seconds,
            warm_batches=_WHOLE_EPOCH_BATCHES,
            whole_epochs_grouped=state == "warm",
        ),
        around=around,
    )
    windows = counted(found.windows)
    for window in windows:
        if window.samples % expected:
            raise RunFailedError(f"a window of whole epochs must have a multiple of {expected}, got {window.samples}")
    return {
        "samples_per_s": rate_interval(windows).mean,
        "windows": [
            {"seconds": window.seconds, "samples": window.samples, "set_aside": window.set_aside}
            for window in found.windows
        ],
        "cpu_by_others": around.shares,
        "page_cache": around.state,
        "resident_share": around.resident_share,
    }


def epoch_samples(row: Row, setting: Setting) -> int:
    """Give the samples of one epoch of a row."""
    return setting.samples if row.samples is None else scanned_samples(setting)


class _FirstPass:
    """A loader whose first pass, which the core drops, is cut.

    A cold epoch must count, so that a stand-in goes before it. A warm-up without workers is broken off after a while:
    it is for what is opened and imported at first use. With workers it is whole, since a pass that is broken off
    leaves batches behind that the next one would have to wait for.
    """

    def __init__(self, loader: Iterable[Any], state: State, workers: int) -> None:
        self._loader = loader
        self._state = state
        self._workers = workers
        self._begun = False

    def __iter__(self) -> Iterator[Any]:
        begun, self._begun = self._begun, True
        if begun or (self._state == "warm" and self._workers):
            return iter(self._loader)
        return iter((None,)) if self._state == "cold" else self._some()

    def _some(self) -> Iterator[Any]:
        until_s = time.perf_counter() + _WARM_UP_S
        for batch in self._loader:
            yield batch
            if time.perf_counter() >= until_s:
                return


class _Around:
    """What goes on around the windows: the page cache, and the CPU time that others take."""

    def __init__(self, files: list[str], wanted: State) -> None:
        self._files = files
        self._wanted = wanted
        self._passes = 0
        self._meter = ContentionMeter(os.getpid(), also=[os.getppid()])
        self.state = "none read"
        self.resident_share: float | None = None
        self.shares: list[float | None] = []
        if wanted == "warm":
            self._prepare()

    def _prepare(self) -> None:
        if self._files:
            self.state, self.resident_share = prepare_page_cache(self._files, self._wanted)

    def before_pass(self) -> None:
        """Evict the files before the cold epoch, and check that they are gone."""
        self._passes += 1
        if self._wanted == "cold" and self._passes > 1:
            self._prepare()

    def begin_window(self) -> None:
        """Begin to look what others take."""
        self._meter.start()

    def after_batch(self) -> None:
        """Do nothing."""

    def end_window(self) -> float | None:
        """Give what others took; a cold epoch is never repeated in its process, so there it is only noted."""
        share = self._meter.share()
        self.shares.append(share)
        return share if self._wanted == "warm" else None

    def own_cpu_s(self) -> float | None:
        """Give what this process and its workers took in the last window."""
        return self._meter.own_cpu_s

    def synchronise(self) -> None:
        """Do nothing: there is no device."""


# Content


def digest(row: Row, setting: Setting) -> dict[str, int]:
    """Sum up what one epoch gives, whatever its order: samples, and their checksums."""
    count, total = 0, 0
    for batch in row.loader(setting, 0) if row.loader else ():
        leaves = [np.asarray(leaf) for leaf in _leaves(batch)]
        for place in range(len(leaves[0])):
            checksum = 0
            for leaf in leaves:
                checksum = zlib.crc32(np.ascontiguousarray(leaf[place]).tobytes(), checksum)
            total += checksum
            count += 1
    return {"count": count, "digest": total}


def _leaves(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        return [leaf for part in batch for leaf in _leaves(part)]
    return [batch]


# Building


def build(setting: Setting, form: tuple[str, str], directory: Path, *, samples: int, workers: int) -> dict[str, float]:
    """Build an archive of ours and give seconds and bytes."""
    source = setting.source()
    if samples < setting.samples:
        source = Subset(source, range(samples))
    _empty(directory)
    started_s = time.perf_counter()
    FORMATS[form[0]].build(source, directory, stored=form[1], workers=workers)  # type: ignore[arg-type]
    return {"seconds": time.perf_counter() - started_s, "bytes": folder_bytes(directory)}


def write(setting: Setting, written: Written, directory: Path) -> dict[str, float]:
    """Have a package write the samples and give seconds and bytes."""
    source = setting.source()
    _empty(directory)
    started_s = time.perf_counter()
    written.write(source, directory, written.stored)
    return {"seconds": time.perf_counter() - started_s, "bytes": folder_bytes(directory)}


def folder_bytes(directory: Path) -> int:
    """Add up what files take on disk: a sparse file counts with what it holds."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def _empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
