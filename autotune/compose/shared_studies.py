"""Studies that many machines measure for: their driver, and the workers."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from autotune.compose.alike import check_clock
from autotune.compose.class_studies import ClassesListener
from autotune.compose.driving import driven
from autotune.compose.places import Places
from autotune.compose.running import settle_interrupted
from autotune.compose.shared_requests import check_shareable, check_storage
from autotune.compose.shared_run import SharedRun
from autotune.compose.shared_worker import SharedWorker, WorkerEnd, WorkerListener
from autotune.compose.sharing_times import SharingTimes
from autotune.errors import ConflictError, DatasetError, FactoryError, TrialServerError
from autotune.registry import Registry, check_separate, open_registry, registry_address
from autotune.spec import OrderAnswer, SharedStudy, StudyMachine, StudySpec, StudySummary, TrialClaim
from autotune.spec.record import new_key
from autotune.study.lock import machine_lock
from autotune.trial import LocalRunner

_LOG = logging.getLogger(__name__)

_USUAL_TIMES = SharingTimes()


def tune_shared(
    spec: StudySpec,
    *,
    at: Places,
    listener: ClassesListener,
    measures: bool = True,
    times: SharingTimes = _USUAL_TIMES,
) -> Mapping[str, StudySummary]:
    """Drive a study that other machines measure for, from start or from where a killed driver left it.

    Args:
        spec: The study.
        at: Where everything is kept; the registry is a PostgreSQL database that all machines reach.
        listener: Is told how it goes.
        measures: Whether this machine measures as well; else its lock is not taken.
        times: How long it waits.

    Returns:
        How it ended for each class of machines that was decided, in the order in which they began.

    Raises:
        SpecError: The study cannot be shared, or the registry cannot be reached by others.
        MachineBusyError: Somebody else drives the study, or another job holds this machine.
        ConflictError: This machine's clock differs from the database's.
        NoMachineError: No machine joined in time, or none was left in any class.
    """
    check_shareable(spec)
    check_storage(at)
    check_separate(registry_address(at.home, at.registry_url), at.optuna_url, at.tracking_uri)
    with (
        machine_lock(f"study {spec.name}", path=at.lock) if measures else nullcontext(),
        driven(spec.name, at) as registry,
    ):
        check_clock(registry)
        study = SharedStudy(name=spec.name, run=new_key(), spec=spec, driven=True)
        answered = registry.share_study(spec, study.run)
        if answered:
            _LOG.warning("took over %d records that a killed driver had not saved", answered)
        settle_interrupted(spec, registry, at)
        with SharedRun(study, at=at, registry=registry, listener=listener, times=times) as run:
            if measures:
                _measure_here(study, at, registry, times=times, until=run.over)
            summaries = run.result()
        registry.end_shared_study(spec.name, study.run)
    return summaries


def work(
    spec: StudySpec,
    *,
    at: Places,
    listener: WorkerListener,
    idle_s: float,
    once: bool = False,
    times: SharingTimes = _USUAL_TIMES,
    emulated_node: str | None = None,
) -> WorkerEnd:
    """Measure on this machine for a study that another one drives.

    Args:
        spec: The study as this machine's own file has it; nothing else is measured.
        at: Where everything is kept; the registry is the driver's.
        listener: Is told how it goes.
        idle_s: Ends after so long without anything to measure.
        once: Whether it ends after one order.
        times: How long it waits.
        emulated_node: Name of this machine where it shares its host with others that pretend to be machines.

    Returns:
        Why it ended.

    Raises:
        SpecError: The driver's study differs from this machine's.
        MachineBusyError: Another job holds this machine.
        ConflictError: Machines of this class would come to other results.
        DatasetError: The dataset cannot be read here.
        RegistryError: The database cannot be reached for too long.
    """
    check_shareable(spec)
    check_storage(at)

    def holding() -> AbstractContextManager[None]:
        return machine_lock(f"measuring for study {spec.name}", path=at.lock)

    with open_registry(at.home, at.registry_url) as registry, LocalRunner(emulated_node=emulated_node) as runner:
        worker = SharedWorker(
            spec, at=at, registry=registry, runner=runner, listener=listener, holding=holding, times=times,
            idle_s=idle_s, once=once,
        )  # fmt: skip
        return worker.serve()


def _measure_here(
    study: SharedStudy, at: Places, registry: Registry, *, times: SharingTimes, until: threading.Event
) -> None:
    """Measure on the driver's own machine, which it holds, as any other does; where it cannot, others still may."""
    with LocalRunner() as runner:
        worker = SharedWorker(
            study.spec, at=at, registry=registry, runner=runner, listener=_Silent(), holding=nullcontext, times=times,
            idle_s=math.inf, stop=until,
        )  # fmt: skip
        try:
            worker.serve()
        except (ConflictError, DatasetError, FactoryError, TrialServerError) as error:
            if not registry.machines_present(study.name, study.run):
                raise
            _LOG.warning("this machine measures nothing more for the study, the others go on: %s", error)


class _Silent:
    """The worker of the driver, whose trials are told as those of the study."""

    def on_waiting(self, why: str) -> None:
        """Say nothing."""

    def on_joined(self, machine: StudyMachine) -> None:
        """Say nothing."""

    def on_answered(self, answer: OrderAnswer) -> None:
        """Say nothing."""

    def on_refused(self, claim: TrialClaim) -> None:
        """Note that something was measured in vain."""
        _LOG.warning("order %s was taken over meanwhile, so what was measured here is not kept", claim.order.key[:8])
