"""`Registry`: saves and finds records, decisions and what is yet to be told to trackers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, Select, case, select

from autotune.errors import RegistryError, SpecError
from autotune.registry import outbox_rows, writes
from autotune.registry.engine import writing
from autotune.registry.rows import CONFIG_FIELDS, Candidate, Measured, OutboxEntry
from autotune.registry.tables import DecisionRow, MachineRow, NewestDecisionRow, TrialRow
from autotune.registry.waiting import patiently
from autotune.spec import Decision, LoaderConfig, MachineFacts, TrialRecord, Value

T = TypeVar("T")
V = TypeVar("V", bound=Value)

Telling = tuple[str, str, str]
"""Topic, key and body of something that a tracker is to be told."""

_SENSELESS_SAMPLES_PER_S = 1e300
"""Rates from here on (infinity) were not written by autotune: a record of it refuses them."""

CANDIDATES_LIMIT = 256
"""Groups that the resolver looks at; more studies of one dataset on one machine class are not told apart."""


class Registry:
    """The registry, opened; `open_registry` and `open_existing` give one.

    Every method is one transaction. Where the database is locked or away it is repeated for a bounded
    time and then raises `RegistryError`; a transaction is written whole or not at all.

    Args:
        engine: Connected to tables of the newest version.
        place: Where the registry is, for messages.
        wait_s: Longest wait for a lock or a server.
    """

    def __init__(self, engine: Engine, *, place: str, wait_s: float) -> None:
        self._engine = engine
        self._wait_s = wait_s
        self.place = place

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection, so that none is open when the process forks."""
        self._engine.dispose()

    # Records

    def save_record(self, record: TrialRecord, outbox: Iterable[Telling] = ()) -> None:
        """Save a record and what trackers are to be told of it, in one transaction; saved once for each key."""
        tellings = list(outbox)

        def work(connection: Connection) -> None:
            writes.insert_record(connection, record)
            outbox_rows.insert(connection, tellings)

        self._write(work)

    def record(self, key: str) -> TrialRecord | None:
        """Give the record with this key; None where there is none."""
        return self._first(select(TrialRow.body).where(TrialRow.key == key), TrialRecord)

    def records(self, study: str, *, workload_digest: str | None = None, phase: str | None = None) -> list[TrialRecord]:
        """Give the records of a study in the order in which they were started."""
        statement = select(TrialRow.body).where(TrialRow.study == study).order_by(TrialRow.started_us, TrialRow.key)
        if workload_digest is not None:
            statement = statement.where(TrialRow.workload_digest == workload_digest)
        if phase is not None:
            statement = statement.where(TrialRow.phase == phase)
        return self._all(statement, TrialRecord)

    def measured(
        self,
        decision: Decision,
        pins: Mapping[str, Any] | None = None,
        *,
        limit: int = 200,
    ) -> list[Measured]:
        """Give what was measured under the circumstances of a decision with these fields, fastest first.

        Args:
            decision: Gives study, machine class, workload and dataset.
            pins: Fields of `LoaderConfig` and the values that they must have, canonical.
            limit: Most results.
        """
        statement = (
            select(TrialRow.config, TrialRow.samples_per_s, TrialRow.phase, MachineRow.body)
            .join(MachineRow, MachineRow.digest == TrialRow.machine_digest)
            .where(
                TrialRow.study == decision.study,
                TrialRow.machine_class == decision.machine.machine_class,
                TrialRow.workload_digest == decision.workload.digest(),
                TrialRow.dataset_digest == decision.dataset.digest(),
                TrialRow.samples_per_s > 0,
                TrialRow.samples_per_s < _SENSELESS_SAMPLES_PER_S,
                *(getattr(TrialRow, _field(name)) == value for name, value in (pins or {}).items()),
            )
            .order_by(TrialRow.samples_per_s.desc(), TrialRow.key)
            .limit(limit)
        )
        rows = self._read(lambda connection: connection.execute(statement).all())
        versions = {body: self._parse(MachineFacts, body).versions for body in {row.body for row in rows}}
        return [
            Measured(
                config=self._parse(LoaderConfig, config), samples_per_s=rate, phase=phase, versions=versions[machine]
            )
            for config, rate, phase, machine in rows
            if rate is not None
        ]

    def studies(self) -> list[str]:
        """Give the names of all studies that have records or decisions, sorted."""
        statement = select(TrialRow.study).union(select(DecisionRow.study))
        return sorted(self._read(lambda connection: connection.execute(statement).scalars().all()))

    # Decisions

    def save_decision(self, decision: Decision, outbox: Iterable[Telling] = ()) -> None:
        """Save a decision and what trackers are to be told of it, in one transaction; saved once for each key."""
        tellings = list(outbox)

        def work(connection: Connection) -> None:
            writes.insert_decision(connection, decision)
            outbox_rows.insert(connection, tellings)

        self._write(work)

    def decision(self, key: str) -> Decision | None:
        """Give the decision with this key; None where there is none."""
        return self._first(select(DecisionRow.body).where(DecisionRow.key == key), Decision)

    def decisions(self, study: str | None = None, limit: int | None = None) -> list[Decision]:
        """Give decisions, newest first: of one study or of all."""
        statement = select(DecisionRow.body).order_by(DecisionRow.decided_us.desc(), DecisionRow.key).limit(limit)
        if study is not None:
            statement = statement.where(DecisionRow.study == study)
        return self._all(statement, Decision)

    def candidates(
        self,
        type_name: str,
        *,
        machine_class: str | None = None,
        length: int | None = None,
        study: str | None = None,
        limit: int = CANDIDATES_LIMIT,
    ) -> list[Candidate]:
        """Give the newest decision of each group for a class of dataset, as far as choosing needs it.

        Args:
            type_name: Class of the dataset.
            machine_class: Only this class of machine; None is any.
            length: Decisions for a dataset of this length come first, then the newest.
            study: Only this study; None is any.
            limit: Most results.
        """
        same_length = case((DecisionRow.length == length, 0), else_=1)
        statement = (
            _candidate_columns()
            .where(NewestDecisionRow.type_name == type_name)
            .order_by(same_length, DecisionRow.decided_us.desc(), DecisionRow.key)
            .limit(limit)
        )
        if machine_class is not None:
            statement = statement.where(NewestDecisionRow.machine_class == machine_class)
        if study is not None:
            statement = statement.where(NewestDecisionRow.study == study)
        return self._candidates(statement)

    def candidates_of_study(self, study: str) -> list[Candidate]:
        """Give the newest decision of each group of one study, newest first."""
        statement = (
            _candidate_columns()
            .where(NewestDecisionRow.study == study)
            .order_by(DecisionRow.decided_us.desc(), DecisionRow.key)
            .limit(CANDIDATES_LIMIT)
        )
        return self._candidates(statement)

    # Outbox

    def outbox_add(self, key: str, topic: str, body: str) -> None:
        """Note something that a tracker is to be told; noted once for each topic and key, settled ones included."""
        self._write(lambda connection: outbox_rows.insert(connection, [(topic, key, body)]))

    def outbox_pending(self, topic: str, limit: int = 100) -> list[OutboxEntry]:
        """Give what is yet to be told, in the order in which it was noted."""
        return self._read(lambda connection: outbox_rows.pending(connection, topic, limit))

    def outbox_settle(self, topic: str, key: str) -> None:
        """Note that the tracker was told."""
        self._write(lambda connection: outbox_rows.settle(connection, topic, key))

    def outbox_failed(self, topic: str, key: str, message: str) -> None:
        """Count a failed attempt; the entry stays pending."""
        self._write(lambda connection: outbox_rows.count_failure(connection, topic, key, message))

    # Transactions

    def _write(self, work: Callable[[Connection], None]) -> None:
        def once() -> None:
            with writing(self._engine) as connection, connection.begin():
                work(connection)

        patiently(once, wait_s=self._wait_s, place=self.place)

    def _read(self, work: Callable[[Connection], T]) -> T:
        def once() -> T:
            with self._engine.connect() as connection:
                return work(connection)

        return patiently(once, wait_s=self._wait_s, place=self.place)

    def _first(self, statement: Select[Any], kind: type[V]) -> V | None:
        body = self._read(lambda connection: connection.execute(statement).scalar())
        return None if body is None else self._parse(kind, body)

    def _all(self, statement: Select[Any], kind: type[V]) -> list[V]:
        bodies = self._read(lambda connection: connection.execute(statement).scalars().all())
        return [self._parse(kind, body) for body in bodies]

    def _candidates(self, statement: Select[Any]) -> list[Candidate]:
        rows = self._read(lambda connection: connection.execute(statement).all())
        return [Candidate(**{**row._mapping, "versions": self._versions(row.versions)}) for row in rows]  # noqa: SLF001

    def _versions(self, text: str) -> dict[str, str]:
        try:
            found = json.loads(text)
        except ValueError as error:
            raise self._unreadable(error) from error
        if not isinstance(found, dict):
            raise self._unreadable(f"versions must be an object, got {text[:40]!r}")
        return {str(name): str(version) for name, version in found.items()}

    def _parse(self, kind: type[V], body: str) -> V:
        try:
            return kind.from_json(body)
        except SpecError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, told: object) -> RegistryError:
        return RegistryError(
            f"the registry {self.place} holds a row that cannot be read ({told}); restore a copy, "
            "or move the file away and tune again"
        )


def _candidate_columns() -> Select[Any]:
    columns = [getattr(DecisionRow, name) for name in Candidate.__slots__]
    return select(*columns).join(NewestDecisionRow, NewestDecisionRow.decision_key == DecisionRow.key)


def _field(name: str) -> str:
    if name not in CONFIG_FIELDS:
        raise SpecError(f"a pin is one of {', '.join(CONFIG_FIELDS)}, got {name!r}")
    return name
