"""`MachinePool`: several machines, each behind a runner and a thread of its own, of which any may be lost."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from autotune.errors import MachineBusyError, MachineLostError, NoMachineError, TrialServerError
from autotune.spec import Failure, Profile, TrialRequest
from autotune.trial._base import OnRecord, Records, TrialRunner
from autotune.trial.lost_trials import loss_over, lost_records
from autotune.units import format_seconds

_logger = logging.getLogger(__name__)

_Found = TypeVar("_Found")

_LOSSES = (MachineLostError, MachineBusyError, TrialServerError)
"""What says that a machine cannot measure, rather than that a configuration is bad."""
_LOSSES_MAX = 3
"""Machines that may be lost over one job: a configuration that ends its machine would take all of them."""
_ENDS_WITHIN_S = 20.0
"""How long the threads get to see that their machines were closed."""


@dataclass(eq=False)
class _Job:
    """Something that one machine is to do.

    Attributes:
        work: Does it.
        lost: What it comes to where too many machines were lost over it.
        losses: How many were.
        future: Of what it comes to.
    """

    work: Callable[[TrialRunner], Any]
    lost: Callable[[], Any]
    losses: int = 0
    future: Future[Any] = field(default_factory=Future)


class MachinePool:
    """Measures on several machines at once; a `autotune.trial.TrialPool`.

    A machine is lost where its runner raises `MachineLostError`, `MachineBusyError` or `TrialServerError`: it gets no
    more work, and what it did is done first by the next one that is free. What three were lost over is a failure.

    Args:
        runners: The machines. The pool closes them.
        wait_s: Longest time without any machine; what waits ends with `NoMachineError` then.
    """

    def __init__(self, runners: Iterable[TrialRunner] = (), *, wait_s: float) -> None:
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._machines: dict[TrialRunner, threading.Thread] = {}
        self._patience: threading.Timer | None = None
        self._last_loss = "there was none from the start"
        self._closed = False
        for runner in runners:
            self.add(runner)

    @property
    def capacity(self) -> int:
        """Machines that can measure now; at least 1, even while one is being waited for."""
        return max(1, len(self._machines))

    def add(self, runner: TrialRunner) -> None:
        """Take in a machine, from any thread."""
        thread = threading.Thread(target=self._serve, args=(runner,), name="machine", daemon=True)
        with self._changed:
            self._machines[runner] = thread
            self._end_patience()
        thread.start()

    def submit(self, requests: Sequence[TrialRequest], *, on_record: OnRecord | None = None) -> Future[Records]:  # noqa: ARG002 - the protocol's
        """Measure requests on one machine; see `TrialPool.submit`."""
        return self._put(
            lambda runner: tuple(runner.run(request) for request in requests), lost=lambda: lost_records(requests)
        )

    def probe(self, request: TrialRequest) -> Profile | Failure:
        """Look at where time and memory go; see `TrialPool.probe`."""
        return self._put(lambda runner: runner.probe(request), lost=lambda: loss_over([request])).result()

    def close(self) -> None:
        """Drop what waits and close all machines; may be called twice."""
        with self._changed:
            self._closed = True
            self._end_patience()
            machines = dict(self._machines)
            self._fail_waiting("the pool was closed")
            self._changed.notify_all()
        for runner in machines:
            runner.close()
        for thread in machines.values():
            thread.join(_ENDS_WITHIN_S)

    def _put(self, work: Callable[[TrialRunner], _Found], *, lost: Callable[[], _Found]) -> Future[_Found]:
        job = _Job(work, lost)
        job.future.set_running_or_notify_cancel()
        with self._changed:
            self._jobs.append(job)
            if self._closed:
                self._fail_waiting("the pool was closed")
            elif not self._machines:
                self._begin_patience()
            self._changed.notify()
        return job.future

    def _serve(self, runner: TrialRunner) -> None:
        """Do one job after another on a machine, until it is lost or the pool is closed."""
        while (job := self._next()) is not None:
            try:
                found = job.work(runner)
            except _LOSSES as error:
                self._lose(runner, job, error)
                return
            except BaseException as error:  # noqa: BLE001 - whoever waits for the future is to know of it
                job.future.set_exception(error)
            else:
                job.future.set_result(found)

    def _next(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._jobs)
            return None if self._closed else self._jobs.popleft()

    def _lose(self, runner: TrialRunner, job: _Job, error: Exception) -> None:
        with self._changed:
            del self._machines[runner]
            self._last_loss = str(error)
            job.losses += 1
            given_up = job.losses >= _LOSSES_MAX and not self._closed
            if not given_up:
                self._jobs.appendleft(job)
            if self._closed:
                self._fail_waiting("the pool was closed")
            elif self._jobs and not self._machines:
                self._begin_patience()
            self._changed.notify()
            left = len(self._machines)
        if given_up:
            _logger.warning("%s; it is the last of %d that were lost over the same trial", error, job.losses)
            job.future.set_result(job.lost())
        else:
            _logger.warning("%s; what it measured is measured on another of %d machines", error, left)
        with suppress(Exception):  # whatever is wrong with it, it gets no more work
            runner.close()

    def _begin_patience(self) -> None:
        if self._patience is None:
            self._patience = threading.Timer(self._wait_s, self._give_up)
            self._patience.daemon = True
            self._patience.start()

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        with self._changed:
            self._patience = None
            if not self._machines:
                waited = format_seconds(self._wait_s)
                self._fail_waiting(f"none came within {waited} after the last one was lost ({self._last_loss})")

    def _fail_waiting(self, why: str) -> None:
        message = f"no machine is left to measure on: {why}; finished trials are kept, and the same command goes on"
        while self._jobs:
            self._jobs.popleft().future.set_exception(NoMachineError(message))
