"""A machine that measures for a shared study, until that is decided or there is nothing to do for too long."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Literal, Protocol

from autotune.compose.alike import check_alike, check_clock
from autotune.compose.holding import this_process
from autotune.compose.places import Places
from autotune.compose.runs import inspect_dataset
from autotune.compose.shared_claims import answered, claim_kept
from autotune.compose.shared_requests import accepted, check_same
from autotune.compose.sharing_times import SharingTimes
from autotune.errors import AutotuneError
from autotune.registry import Registry
from autotune.spec import Inspection, OrderAnswer, SharedStudy, StudyMachine, StudySpec, TrialClaim
from autotune.trial import TrialRunner

WorkerEnd = Literal["decided", "idle", "once", "stopped"]
"""Why a worker ended: the study was decided, nothing was to do, one order was enough, or its caller said so."""


class WorkerListener(Protocol):
    """Is told how a worker goes."""

    def on_waiting(self, why: str) -> None:
        """Nothing can be measured for now."""

    def on_joined(self, machine: StudyMachine) -> None:
        """The machine takes part."""

    def on_answered(self, answer: OrderAnswer) -> None:
        """An order was measured and kept."""

    def on_refused(self, claim: TrialClaim) -> None:
        """An order was measured too late: it was taken over or withdrawn meanwhile, and nothing of it was kept."""


class SharedWorker:
    """Measures one order at a time on this machine.

    Args:
        spec: The study of this machine's own file.
        at: Where everything is kept here.
        registry: The registry that the study is shared through.
        runner: Measures.
        listener: Is told how it goes.
        holding: Gives what holds the machine while it takes part.
        times: How long it waits.
        idle_s: Ends after so long without anything to measure.
        once: Whether it ends after one order.
        stop: Ends it between two orders.
        clock: Monotonic seconds.
        now: Seconds since the epoch.
    """

    def __init__(
        self,
        spec: StudySpec,
        *,
        at: Places,
        registry: Registry,
        runner: TrialRunner,
        listener: WorkerListener,
        holding: Callable[[], AbstractContextManager[None]],
        times: SharingTimes,
        idle_s: float,
        once: bool = False,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._spec = spec
        self._at = at
        self._registry = registry
        self._runner = runner
        self._listener = listener
        self._holding = holding
        self._times = times
        self._idle_s = idle_s
        self._once = once
        self._stop = stop or threading.Event()
        self._clock = clock
        self._now = now
        self._busy_at_s = clock()
        self._told_waiting = ""
        self._inspection: Inspection | None = None

    def serve(self) -> WorkerEnd:
        """Take part in each run of the study that is driven, until there is a reason to end.

        Raises:
            MachineBusyError: Another tuning job holds this machine.
            SpecError: The study is not the one of this machine's file.
            ConflictError: Machines of this class would come to other results, or this one's clock is wrong.
            DatasetError: The dataset cannot be read here.
            RegistryError: The database cannot be reached for too long.
        """
        while True:
            study = self._registry.shared_study(self._spec.name)
            if study is not None and study.driven and not study.ended:
                end = self._take_part(study)
                if end is not None:
                    return end
            elif study is None or study.ended:
                self._tell_waiting(f"nobody shares study {self._spec.name} yet")
            else:
                self._tell_waiting(_gone(study.name))
            if end := self._pause(self._times.poll_s):
                return end

    def _take_part(self, study: SharedStudy) -> WorkerEnd | None:
        """Measure for one run; None where it was replaced by another one."""
        check_same(self._spec, study.spec)
        check_clock(self._registry, self._now)
        with ExitStack() as held:
            held.enter_context(self._holding())
            found = self._inspection or inspect_dataset(self._runner, self._spec, at=self._at)
            self._inspection = found
            machine = StudyMachine(study=study.name, run=study.run, holder=this_process(), inspection=found)
            first = self._registry.join_study(machine, self._times.claim_s)
            if first is None:
                return None
            held.callback(self._leave, machine)
            check_alike(self._spec, first.inspection, found)
            self._listener.on_joined(machine)
            self._told_waiting = ""
            self._busy_at_s = self._clock()
            return self._measure_all(machine)

    def _measure_all(self, machine: StudyMachine) -> WorkerEnd | None:
        """Measure order after order; None where the run was replaced by another one."""
        looked_at_s = -math.inf
        while True:
            claim = self._registry.claim_order(machine, self._times.claim_s)
            if claim is not None:
                self._measure(claim)
                self._busy_at_s = self._clock()
                if self._once:
                    return "once"
            elif self._clock() - looked_at_s >= self._times.looked_every_s:
                looked_at_s = self._clock()
                self._registry.stay_in_study(machine.key, self._times.claim_s)
                now = self._registry.shared_study(machine.study)
                if now is None or now.run != machine.run:
                    return None
                if now.ended:
                    return "decided"
                if not now.driven:
                    self._tell_waiting(_gone(now.name))
            if end := self._pause(0.0 if claim is not None else self._times.poll_s):
                return end

    def _measure(self, claim: TrialClaim) -> None:
        with claim_kept(self._registry, claim, self._times):
            requests = tuple(accepted(request, self._spec, self._at) for request in claim.order.requests)
            answer = answered(self._runner, claim, requests)
        if self._registry.answer_order(claim, answer):
            self._listener.on_answered(answer)
        else:
            self._listener.on_refused(claim)

    def _pause(self, seconds: float) -> WorkerEnd | None:
        """Wait for the next look; gives why there is none."""
        if self._stop.wait(seconds):
            return "stopped"
        return "idle" if self._clock() - self._busy_at_s >= self._idle_s else None

    def _leave(self, machine: StudyMachine) -> None:
        with suppress(AutotuneError):  # it counts as gone by itself
            self._registry.leave_study(machine.key)

    def _tell_waiting(self, why: str) -> None:
        if why != self._told_waiting:
            self._told_waiting = why
            self._listener.on_waiting(why)


def _gone(study: str) -> str:
    return f"the driver of study {study} is gone; start it again, it goes on"
