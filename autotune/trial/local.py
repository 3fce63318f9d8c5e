"""`LocalRunner`: measures on this machine, one fresh process a trial."""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import IO, Literal, Self

from autotune.cgroups import count_oom_kills
from autotune.constants import RETRY_LIMIT
from autotune.errors import TrialServerError
from autotune.spec import Failure, Inspection, Profile, TrialRecord, TrialRequest
from autotune.trial.connection import ServerConnection, end_session
from autotune.trial.cpu_limit import cpu_group
from autotune.trial.deaths import died
from autotune.trial.leftovers import remove_shared_memory
from autotune.trial.messages import Lines, Order, Report, Task
from autotune.units import format_seconds

_logger = logging.getLogger(__name__)

_KILLED_WITHIN_S = 20.0
"""How long the server gets to kill and reap a trial, before it is given up with all of its processes."""
_LOG_TAIL_BYTES = 2000
_SOCKET_FOLDER_BYTES = 75
_SERVER_STARTS = 2
"""A server that died between trials is started once more; when that fails too, the machine is at fault."""


@dataclass
class _Life:
    """What is known of one trial process."""

    report: Report = field(default_factory=Report)
    pid: int | None = None
    pids: set[int] = field(default_factory=set)
    phase: str = "start"
    ended: bool = False
    exit_code: int | None = None
    killed: bool = False
    timed_out: bool = False


class LocalRunner:
    """Measures on this machine; a `autotune.trial.TrialRunner`.

    The server starts with the first request, and ends with `close` or with this process.

    Args:
        start: `fork` from a preloaded server, or a `fresh` interpreter for each trial; None is
            `fork` on Linux and `fresh` elsewhere, where forking after loading libraries is not safe.
        cpu_cap: Most CPUs that the user allows.
        emulated_node: Name of this machine where it shares its host with others that pretend to be machines: records
            carry it, and CPU time of others is not looked at where the consumer's step is emulated.
        unset: Variables of this process's environment that trials do not get.
        on_progress: Told phase, samples done and all samples of slow preparations; never while a window is timed.
    """

    def __init__(
        self,
        *,
        start: Literal["fork", "fresh"] | None = None,
        cpu_cap: int | None = None,
        emulated_node: str | None = None,
        unset: Collection[str] = (),
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._start = start or ("fork" if sys.platform == "linux" else "fresh")
        self._cpu_cap = cpu_cap
        self._emulated_node = emulated_node
        self._unset = unset
        self._on_progress = on_progress
        self._server: ServerConnection | None = None
        self._lock = threading.Lock()
        self._preload: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, request: TrialRequest) -> TrialRecord:
        """Measure one configuration in a fresh process; see `TrialRunner.run`."""
        started_at, started_s = datetime.now(UTC), monotonic()
        attempts = 0
        with self._lock:
            while True:
                attempts += 1
                report = self._once("run", request)
                failure = report.failure
                if failure is None or not failure.retryable or attempts > RETRY_LIMIT:
                    break
                _logger.warning("trial %s is run again: %s", request.key, failure.message)
        return TrialRecord(
            key=request.key,
            study=request.study,
            number=request.number,
            phase=request.phase,
            workload=request.workload,
            config=request.config,
            measurement=report.measurement,
            failure=failure,
            machine=report.machine,
            dataset=report.dataset,
            started_at=started_at,
            wall_s=monotonic() - started_s,
            attempts=attempts,
        )

    def inspect(self, request: TrialRequest) -> Inspection | Failure:
        """Look at dataset and machine in a fresh process; see `TrialRunner.inspect`."""
        with self._lock:
            report = self._once("inspect", request)
        found = report.failure or report.inspection
        assert found is not None  # noqa: S101 - a life ends with one of them
        return found

    def probe(self, request: TrialRequest) -> Profile | Failure:
        """Look at where time and memory go, in a fresh process; see `TrialRunner.probe`."""
        with self._lock:
            report = self._once("probe", request)
        found = report.failure or report.profile
        assert found is not None  # noqa: S101 - a life ends with one of them
        return found

    def close(self) -> None:
        """End the server and everything that it started."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def _once(self, task: Task, request: TrialRequest) -> Report:
        """Let one process live, clear away what it leaves, and give its last report."""
        kills = count_oom_kills()
        temporary = _make_temporary()
        life = _Life()
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        try:
            with cpu_group(request.cpus) as group, tempfile.TemporaryFile() as log:
                try:
                    order = self._make_order(task, request, temporary, group)
                    server = self._start_trial(order, pipe=writer, log=log.fileno())
                finally:
                    os.close(writer)
                self._follow(life, server, reader, deadline_s=monotonic() + request.timeout_s)
                tail = _tail(log)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(reader)
            remove_shared_memory(life.pids)
            shutil.rmtree(temporary, ignore_errors=True)
        self._preload = tuple(dict.fromkeys((*self._preload, *life.report.libraries)))
        if life.report.final:
            return life.report
        if life.timed_out:
            return life.report.replace(failure=_timed_out(life, request.timeout_s))
        kills = count_oom_kills() - kills
        failure = died(life.exit_code, phase=life.phase, oom_kills=kills, log=tail)
        return life.report.replace(failure=failure)

    def _make_order(self, task: Task, request: TrialRequest, temporary: str, group: Path | None) -> Order:
        return Order(
            task=task,
            request=request,
            sys_path=tuple(sys.path),
            folder=str(Path.cwd()),
            temporary=temporary,
            tuner_pid=os.getpid(),
            cpu_cap=self._cpu_cap,
            preload=self._preload,
            cpu_group=None if group is None else str(group),
            emulated_node=self._emulated_node,
        )

    def _start_trial(self, order: Order, *, pipe: int, log: int) -> ServerConnection:
        """Send an order, to a new server where the last one is gone."""
        for _ in range(_SERVER_STARTS):
            if self._server is None or not self._server.alive:
                self.close()
                self._server = ServerConnection(fresh=self._start == "fresh", unset=self._unset)
            try:
                self._server.order(order, pipe=pipe, log=log)
            except OSError as error:
                _logger.warning("the trial server is gone and is started again: %s", error)
                self.close()
            else:
                return self._server
        raise TrialServerError(f"the trial server ended {_SERVER_STARTS} times before it took an order")

    def _follow(self, life: _Life, server: ServerConnection, reader: int, *, deadline_s: float) -> None:
        """Take reports and notices until nothing of the trial is left; kill it at the deadline."""
        lines = Lines()
        with selectors.DefaultSelector() as selector:
            selector.register(server.socket, selectors.EVENT_READ)
            selector.register(reader, selectors.EVENT_READ)
            while not life.ended:
                for key, _ in selector.select(max(0.0, deadline_s - monotonic())):
                    if key.fd != reader:
                        self._take_notices(life, server)
                    elif not _take_reports(life, lines, reader, self._on_progress):
                        selector.unregister(reader)
                if not life.ended and monotonic() >= deadline_s:
                    if life.timed_out or life.killed:
                        self._give_up(life)
                        return
                    life.timed_out = not life.report.final
                    life.killed = True
                    server.kill()
                    deadline_s = monotonic() + _KILLED_WITHIN_S
        while _take_reports(life, lines, reader):
            pass

    def _take_notices(self, life: _Life, server: ServerConnection) -> None:
        notices = server.receive()
        if notices is None:
            self._give_up(life)
            return
        for notice in notices:
            if notice.started_pid is not None:
                life.pid = notice.started_pid
                life.pids.add(notice.started_pid)
            if notice.ended_pid is not None:
                life.exit_code = notice.exit_code
                life.pids.update(notice.pids)
                life.ended = True

    def _give_up(self, life: _Life) -> None:
        """End what a server left that was killed or hangs."""
        life.ended = True
        self.close()
        if life.pid is not None:
            life.pids.update(end_session(life.pid))


def _take_reports(
    life: _Life, lines: Lines, reader: int, on_progress: Callable[[str, int, int], None] | None = None
) -> bool:
    """Take what has arrived; False when there is no more for now."""
    try:
        data = os.read(reader, 1 << 16)
    except BlockingIOError:
        return False
    for line in lines.feed(data):
        report = Report.from_json(line)
        life.phase = report.phase or life.phase
        if on_progress is not None and report.done is not None and report.total is not None:
            on_progress(life.phase, report.done, report.total)
        life.pids.update(report.worker_pids)
        news = {name: getattr(report, name) for name in report.model_fields_set}
        life.report = life.report.model_copy(update={name: value for name, value in news.items() if value is not None})
    return bool(data)


def _make_temporary() -> str:
    """Make a trial's folder for temporary files, short enough that workers can make their sockets in it.

    The path of a socket has 107 bytes at most, and multiprocessing adds 32 (`/pymp-xxxxxxxx/listener-xxxxxxxx`):
    beyond that, batches get lost without an error and the trial waits until its time is over.
    """
    folder = tempfile.mkdtemp(prefix="autotune-trial-")
    if len(os.fsencode(folder)) <= _SOCKET_FOLDER_BYTES or sys.platform == "win32":
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    return tempfile.mkdtemp(prefix="autotune-trial-", dir="/tmp")


def _timed_out(life: _Life, timeout_s: float) -> Failure:
    message = (
        f"a trial may take {format_seconds(timeout_s)}, and was killed in phase {life.phase!r} after that; "
        "raise trial_timeout_s if this phase is only slow"
    )
    return Failure(kind="timed_out", phase=life.phase, message=message)


def _tail(log: IO[bytes]) -> str:
    """Give the last line of a trial's output that says something."""
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _LOG_TAIL_BYTES))
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""
