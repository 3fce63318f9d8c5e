"""One run of a shared study: a study for each class of the machines that join it, side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from types import TracebackType
from typing import Self

from autotune.compose.class_studies import ClassesListener, ClassStudies, decided
from autotune.compose.places import Places
from autotune.compose.shared_pool import SharedPool
from autotune.compose.sharing_times import SharingTimes
from autotune.errors import NoMachineError
from autotune.registry import Registry
from autotune.spec import SharedStudy, StudySummary
from autotune.units import format_seconds

_ENDS_WITHIN_S = 20.0


class SharedRun:
    """Runs a study for each class of machines that joins, each in a thread, until all are decided.

    Args:
        study: The run.
        at: Where everything is kept.
        registry: The registry, under the driver's lease.
        listener: Is told how it goes.
        times: How long it waits.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        study: SharedStudy,
        *,
        at: Places,
        registry: Registry,
        listener: ClassesListener,
        times: SharingTimes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.over = threading.Event()
        self._study = study
        self._registry = registry
        self._listener = listener
        self._times = times
        self._clock = clock
        self._closed = threading.Event()
        self._studies = ClassStudies(study.spec, at=at, registry=registry, listener=listener)
        self._guard = threading.Lock()
        self._pools: list[SharedPool] = []
        self._summaries: dict[str, Future[StudySummary]] = {}
        self._ended: Future[None] = Future()
        self._threads = [threading.Thread(target=self._watch, name="classes", daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        with self._guard:
            pools = list(self._pools)
        for pool in pools:
            pool.close()
        for thread in list(self._threads):
            thread.join(_ENDS_WITHIN_S)

    def result(self) -> dict[str, StudySummary]:
        """Wait for the end; give how it ended for each class that was decided, in the order in which they began.

        Raises:
            NoMachineError: None joined in time, or none was left in any class.
        """
        self._ended.result()
        return decided(self._summaries, self._study.name)

    def _watch(self) -> None:
        """Begin a study for each class that joins, until all that began have ended."""
        try:
            self._begin_all()
        except BaseException as error:  # noqa: BLE001  (whoever waits for the result is to know of it)
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)
        finally:
            self.over.set()

    def _begin_all(self) -> None:
        began_s, shown = self._clock(), None
        while not self._closed.wait(self._times.poll_s):
            present = self._registry.machines_present(self._study.name, self._study.run)
            if present != shown:
                shown = present
                self._listener.on_machines(present)
            for machine_class in sorted(present.keys() - self._summaries.keys()):
                self._begin(machine_class)
            if self._summaries and all(future.done() for future in self._summaries.values()):
                return
            if not self._summaries and self._clock() - began_s >= self._times.awaited_s:
                raise NoMachineError(
                    f"no machine has joined study {self._study.name!r} within {format_seconds(self._times.awaited_s)}; "
                    f"start `autotune worker --study {self._study.name}` where it can be measured, then this again"
                )

    def _begin(self, machine_class: str) -> None:
        future: Future[StudySummary] = Future()
        self._summaries[machine_class] = future

        def work() -> None:
            try:
                future.set_result(self._decide(machine_class))
            except BaseException as error:  # noqa: BLE001  (as above)
                future.set_exception(error)

        thread = threading.Thread(target=work, name=machine_class, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _decide(self, machine_class: str) -> StudySummary:
        """Run the whole study on the machines of one class."""
        name, run, registry = self._study.name, self._study.run, self._registry
        with closing(SharedPool(registry, self._study, machine_class, times=self._times)) as pool:
            with self._guard:
                self._pools.append(pool)
            if self._closed.is_set():
                pool.close()
            inspection = registry.first_machine(name, run, machine_class).inspection
            return self._studies.decide(pool, inspection)
