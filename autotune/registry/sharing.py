"""Shared studies: one driver, many machines that measure for it, each order answered once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from sqlalchemy import Connection

from autotune.errors import SpecError
from autotune.registry import lease_rows, order_rows, sharing_rows, writes
from autotune.registry.transactions import Transactions
from autotune.spec import OrderAnswer, SharedStudy, StudyMachine, StudySpec, TrialClaim, TrialOrder


class Sharing(Transactions):
    """The part of the registry that studies are shared through.

    Lives of machines and claims are in seconds of the database's clock.
    """

    def clock_ahead_s(self, now: Callable[[], float] = time.time) -> float:
        """Give by how many seconds this machine's clock is at least ahead of the database's; below 0 if it is behind.

        Args:
            now: Seconds since the epoch.
        """

        def work(connection: Connection) -> float:
            there_s = lease_rows.wall_us(connection) / 1e6
            asked_s = now()
            there_later_s = lease_rows.wall_us(connection) / 1e6
            return max(0.0, asked_s - there_later_s) + min(0.0, asked_s - there_s)

        return self._read(work)

    # The driver's

    def share_study(self, spec: StudySpec, run: str) -> int:
        """Begin a run of a study, and save the records that an interrupted one had answered but not saved.

        Args:
            spec: The study.
            run: Key of the run.

        Returns:
            How many records were answered.
        """

        def work(connection: Connection) -> int:
            taken_over = self._take_over(connection, spec.name)
            sharing_rows.open_run(connection, spec, run)
            return taken_over

        return self._write(work)

    def end_shared_study(self, study: str, run: str) -> None:
        """Tell the machines of a run that it has come to its decisions."""

        def work(connection: Connection) -> None:
            if sharing_rows.end_run(connection, study, run):
                self._take_over(connection, study)

        self._write(work)

    def machines_present(self, study: str, run: str) -> Mapping[str, int]:
        """Count the machines that take part in a run now, by class."""
        return self._read(lambda connection: sharing_rows.present(connection, study, run))

    def first_machine(self, study: str, run: str, machine_class: str) -> StudyMachine:
        """Give the machine of a class that joined a run first, by which all others of the class go."""
        body = self._read(lambda connection: sharing_rows.first_of_class(connection, study, run, machine_class))
        if body is None:
            raise SpecError(f"a machine of the class {machine_class!r} must have joined study {study!r}, got none")
        return self._parse(StudyMachine, body)

    def place_order(self, study: str, machine_class: str, order: TrialOrder) -> None:
        """Ask the machines of a class to measure something."""
        text = order.to_json()
        self._write(lambda connection: order_rows.place(connection, study, machine_class, key=order.key, body=text))

    def withdraw_orders(self, keys: Collection[str]) -> None:
        """Have orders not measured any more; those that are answered stay."""
        self._write(lambda connection: order_rows.withdraw(connection, keys))

    def settled_orders(self, keys: Collection[str]) -> Mapping[str, OrderAnswer | None]:
        """Give what orders came to, as far as they did; None where too many machines were lost over one."""
        found = self._read(lambda connection: order_rows.settled(connection, keys))
        return {key: None if text is None else self._parse(OrderAnswer, text) for key, text in found.items()}

    def _take_over(self, connection: Connection, study: str) -> int:
        """Remove all orders of a study, and save what was answered; gives how many records."""
        answers = [self._parse(OrderAnswer, text) for text in order_rows.remove(connection, study)]
        records = [record for answer in answers for record in answer.records]
        # a bad reading says nothing of its configuration, which is measured again
        sensible = [one for one in records if one.failure is None or one.failure.kind != "senseless"]
        for record in sensible:
            writes.insert_record(connection, record)
        return len(sensible)

    # The workers'

    def shared_study(self, name: str) -> SharedStudy | None:
        """Give the newest run of a study; None where it was never shared."""
        found = self._read(lambda connection: sharing_rows.find(connection, name))
        if found is None:
            return None
        row, driven = found
        spec = self._parse(StudySpec, row.body)
        return SharedStudy(name=row.name, run=row.run, spec=spec, ended=row.ended_us is not None, driven=driven)

    def join_study(self, machine: StudyMachine, life_s: float) -> StudyMachine | None:
        """Take part in a run; give the machine of its class that joined first, None where the run is over."""
        body = self._write(lambda connection: sharing_rows.join(connection, machine, _us(life_s)))
        return None if body is None else self._parse(StudyMachine, body)

    def leave_study(self, worker: str) -> None:
        """Take no further part."""
        self._write(lambda connection: sharing_rows.leave(connection, worker))

    def stay_in_study(self, worker: str, life_s: float) -> None:
        """Count as taking part for a while longer."""
        self._write(lambda connection: sharing_rows.stay(connection, worker, _us(life_s)))

    def claim_order(self, machine: StudyMachine, life_s: float) -> TrialClaim | None:
        """Take the order that waits longest for a machine of this class; None where none does, or its run is over.

        The machine counts as taking part for as long as the claim lives.
        """

        def work(connection: Connection) -> tuple[str, int] | None:
            taken = order_rows.claim(connection, machine, _us(life_s))
            if taken is not None:
                sharing_rows.stay(connection, machine.key, _us(life_s))
            return taken

        found = self._write(work)
        if found is None:
            return None
        return TrialClaim(order=self._parse(TrialOrder, found[0]), token=found[1], worker=machine.key)

    def renew_claim(self, claim: TrialClaim, life_s: float) -> bool:
        """Have a claim, and the machine's presence, end later; False where the claim was lost."""

        def work(connection: Connection) -> bool:
            kept = order_rows.renew(connection, claim.order.key, claim.token, _us(life_s))
            if kept:  # else it may have left meanwhile: a renewal waits for long where the database is away
                sharing_rows.stay(connection, claim.worker, _us(life_s))
            return kept

        return self._write(work)

    def give_back(self, claim: TrialClaim) -> None:
        """Let another machine have an order at once."""
        self._write(lambda connection: order_rows.give_back(connection, claim.order.key, claim.token))

    def answer_order(self, claim: TrialClaim, answer: OrderAnswer) -> bool:
        """Keep what an order came to; False where it was taken over or withdrawn meanwhile: nothing is kept then."""
        text = answer.to_json()
        return self._write(lambda connection: order_rows.answer(connection, claim.order.key, claim.token, text))


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
