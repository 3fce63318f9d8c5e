"""The machines of one class that measure for a shared study, through the registry."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Protocol

from autotune.compose.sharing_times import SharingTimes
from autotune.errors import AutotuneError, NoMachineError
from autotune.spec import (
    Failure,
    OrderAnswer,
    Profile,
    SharedStudy,
    TrialOrder,
    TrialRecord,
    TrialRequest,
)
from autotune.trial import Records
from autotune.trial.lost_trials import loss_over, lost_records
from autotune.units import format_seconds

_PRESENT_EVERY_S = 1.0


class OrderBoard(Protocol):
    """Where orders are placed and answered: the part of the registry that a pool needs."""

    def place_order(self, study: str, machine_class: str, order: TrialOrder) -> None:
        """Ask the machines of a class to measure something."""

    def withdraw_orders(self, keys: Collection[str]) -> None:
        """Have orders not measured any more."""

    def settled_orders(self, keys: Collection[str]) -> Mapping[str, OrderAnswer | None]:
        """Give what orders came to, as far as they did; None where too many machines were lost over one."""

    def machines_present(self, study: str, run: str) -> Mapping[str, int]:
        """Count the machines that take part now, by class."""


class SharedPool:
    """Hands requests to the machines of one class, and gives futures of what they measure.

    A thread looks for answers; it ends with `close`.

    Args:
        board: Where orders are placed and answered.
        study: The run.
        machine_class: Class of the machines.
        times: How long it waits.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        board: OrderBoard,
        study: SharedStudy,
        machine_class: str,
        *,
        times: SharingTimes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board = board
        self._study = study
        self._class = machine_class
        self._times = times
        self._clock = clock
        self._guard = threading.Lock()
        self._pending: dict[str, tuple[TrialOrder, Future[OrderAnswer]]] = {}
        self._error: AutotuneError | None = None
        self._closed = threading.Event()
        self._present = self._count()
        self._seen_at_s = clock()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    @property
    def capacity(self) -> int:
        """Machines that take part now, at least 1."""
        return max(1, self._present)

    def submit(
        self,
        requests: Sequence[TrialRequest],
        *,
        on_record: Callable[[TrialRecord], None] | None = None,  # noqa: ARG002 - the protocol's
    ) -> Future[Records]:
        """Have requests measured on one machine; see `TrialPool.submit`."""
        records: Future[Records] = Future()
        records.set_running_or_notify_cancel()

        def hand_on(answer: Future[OrderAnswer]) -> None:
            error = answer.exception()
            if error is not None:
                records.set_exception(error)
            else:
                records.set_result(answer.result().records)

        self._place(TrialOrder(requests=tuple(requests))).add_done_callback(hand_on)
        return records

    def probe(self, request: TrialRequest) -> Profile | Failure:
        """Look at where time and memory of a batch go, on one machine; see `TrialPool.probe`."""
        answer = self._place(TrialOrder(task="probe", requests=(request,))).result()
        found = answer.profile or answer.failure
        assert found is not None  # noqa: S101 - a probe is answered with one of them
        return found

    def close(self) -> None:
        """Withdraw what is not measured yet; its futures are cancelled. May be called twice."""
        self._closed.set()
        with self._guard:
            left = dict(self._pending)
            self._pending.clear()
        self._withdraw(left)
        for _, future in left.values():
            future.set_exception(CancelledError())

    def _place(self, order: TrialOrder) -> Future[OrderAnswer]:
        future: Future[OrderAnswer] = Future()
        future.set_running_or_notify_cancel()
        with self._guard:
            if self._error is not None:
                raise self._error
            if self._closed.is_set():
                raise CancelledError
            self._pending[order.key] = (order, future)
        try:
            self._board.place_order(self._study.name, self._class, order)
        except BaseException:
            with self._guard:
                self._pending.pop(order.key, None)
            raise
        return future

    def _collect(self) -> None:
        """Look for answers until the pool is closed, or cannot go on."""
        counted_at_s = self._clock()
        while not self._closed.wait(self._times.poll_s):
            try:
                self._settle()
                if self._clock() - counted_at_s >= min(_PRESENT_EVERY_S, self._times.claim_s):
                    self._present, counted_at_s = self._count(), self._clock()
                self._check_present()
            except AutotuneError as error:
                self._fail(error)
                return

    def _settle(self) -> None:
        with self._guard:
            keys = list(self._pending)
        if not keys:
            return
        for key, answer in self._final(keys).items():
            with self._guard:
                found = self._pending.pop(key, None)
            if found is not None:
                found[1].set_result(answer or _given_up(found[0]))

    def _final(self, keys: Collection[str]) -> Mapping[str, OrderAnswer | None]:
        """Give what orders came to; one that is given up is withdrawn, so that no late answer is taken for kept."""
        found = self._board.settled_orders(keys)
        given_up = [key for key, answer in found.items() if answer is None]
        if not given_up:
            return found
        self._board.withdraw_orders(given_up)
        return {**found, **self._board.settled_orders(given_up)}  # what was answered just before that counts

    def _check_present(self) -> None:
        """Refuse to wait for machines for ever.

        Raises:
            NoMachineError: None of the class has been there for too long.
        """
        now_s = self._clock()
        if self._present or not self._pending:
            self._seen_at_s = now_s
        elif now_s - self._seen_at_s >= self._times.awaited_s:
            raise NoMachineError(
                f"none of the class {self._class!r} has measured for study {self._study.name!r} within "
                f"{format_seconds(self._times.awaited_s)}; start workers, then the same command again, which goes on"
            )

    def _fail(self, error: AutotuneError) -> None:
        with self._guard:
            self._error = error
            left = dict(self._pending)
            self._pending.clear()
        self._withdraw(left)
        for _, future in left.values():
            future.set_exception(error)

    def _withdraw(self, keys: Collection[str]) -> None:
        if keys:
            with suppress(AutotuneError):  # the next driver withdraws them
                self._board.withdraw_orders(keys)

    def _count(self) -> int:
        return self._board.machines_present(self._study.name, self._study.run).get(self._class, 0)


def _given_up(order: TrialOrder) -> OrderAnswer:
    """Answer an order that too many machines were lost over."""
    if order.task == "probe":
        return OrderAnswer(failure=loss_over(order.requests))
    return OrderAnswer(records=lost_records(order.requests))
