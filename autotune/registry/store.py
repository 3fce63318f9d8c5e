"""`Registry`: saves and finds records, decisions and what is yet to be told to trackers."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Select, case, func, or_, select

from autotune.errors import SpecError
from autotune.registry import deployment_rows, outbox_rows, writes
from autotune.registry.access import Access
from autotune.registry.leases import Leases
from autotune.registry.nights import Nights
from autotune.registry.reviews import Reviews
from autotune.registry.rows import CONFIG_FIELDS, Candidate, Measured, OutboxEntry, microseconds
from autotune.registry.sharing import Sharing
from autotune.registry.study_queue import StudyQueue
from autotune.registry.tables import DecisionEventRow, DecisionRow, DeploymentRow, MachineRow, TrialRow
from autotune.spec import Decision, DecisionEvent, LoaderConfig, MachineFacts, TrialRecord
from autotune.spec.study import Promotion

Telling = tuple[str, str, str]
"""Topic, key and body of something that a tracker is to be told."""

_SENSELESS_SAMPLES_PER_S = 1e300
"""Rates from here on (infinity) were not written by autotune: a record of it refuses them."""

CANDIDATES_LIMIT = 256
"""Groups that the resolver looks at; more studies of one dataset on one machine class are not told apart."""


class Registry(Reviews, Access, StudyQueue, Nights, Leases, Sharing):
    """The registry, opened; `open_registry` and `open_existing` give one.

    It is made of parts: records and decisions are here, the others are its bases. Every method is one
    transaction, repeated for a bounded time where the database is locked or away.
    """

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

    def records_behind(
        self, decision: Decision, phases: Collection[str], *, limit: int
    ) -> tuple[list[TrialRecord], int]:
        """Give the newest records of some phases that a decision may rest on, in order, and how many more there are.

        They are of its study and workload, of its dataset and class of machine as far as these are known, and were
        started before it was drawn.
        """
        machine, dataset = decision.machine.machine_class, decision.dataset.digest()
        conditions = (
            TrialRow.study == decision.study,
            TrialRow.phase.in_(phases),
            TrialRow.workload_digest == decision.workload.digest(),
            or_(TrialRow.machine_class.is_(None), TrialRow.machine_class == machine),
            or_(TrialRow.dataset_digest.is_(None), TrialRow.dataset_digest == dataset),
            TrialRow.started_us <= microseconds(decision.decided_at),
        )
        newest = select(TrialRow.body).where(*conditions).order_by(TrialRow.started_us.desc(), TrialRow.key.desc())
        found = self._all(newest.limit(limit), TrialRecord)[::-1]
        if len(found) < limit:
            return found, 0
        count = select(func.count()).select_from(TrialRow).where(*conditions)
        return found, self._read(lambda connection: connection.execute(count).scalar_one()) - len(found)

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
        # hundreds of runs are of a few configurations on a few machines
        versions = {body: self._parse(MachineFacts, body).versions for body in {row.body for row in rows}}
        configs = {body: self._parse(LoaderConfig, body) for body in {row.config for row in rows}}
        return [
            Measured(config=configs[config], samples_per_s=rate, phase=phase, versions=versions[machine])
            for config, rate, phase, machine in rows
            if rate is not None
        ]

    def studies(self) -> list[str]:
        """Give the names of all studies that have records or decisions, sorted."""
        statement = select(TrialRow.study).union(select(DecisionRow.study))
        return sorted(self._read(lambda connection: connection.execute(statement).scalars().all()))

    # Decisions

    def save_decision(
        self, decision: Decision, outbox: Iterable[Telling] = (), *, promotion: Promotion = "automatic"
    ) -> DecisionEvent | None:
        """Save a decision, deploy it or have it wait, and note what trackers are to be told, in one transaction.

        Saved once for each key.

        Args:
            decision: The decision.
            outbox: What trackers are to be told.
            promotion: With `review` another configuration than the one that is served waits for a person.

        Returns:
            What became of it; None where a newer decision was there already.
        """
        tellings = list(outbox)

        def work(connection: Connection) -> None:
            if writes.insert_decision(connection, decision):
                deployment_rows.settle(connection, decision, promotion)
            outbox_rows.insert(connection, tellings)

        self._write(work)
        return next(reversed(self.events(decision=decision.key)), None)

    def decision(self, key: str) -> Decision | None:
        """Give the decision with this key; None where there is none."""
        return self._first(select(DecisionRow.body).where(DecisionRow.key == key), Decision)

    def decisions(self, study: str | None = None, limit: int | None = None) -> list[Decision]:
        """Give decisions, newest first: of one study or of all."""
        statement = select(DecisionRow.body).order_by(DecisionRow.decided_us.desc(), DecisionRow.key).limit(limit)
        if study is not None:
            statement = statement.where(DecisionRow.study == study)
        return self._all(statement, Decision)

    def decisions_of(self, keys: Collection[str]) -> list[Decision]:
        """Give the decisions with these keys, as far as there are any, newest first."""
        statement = select(DecisionRow.body).where(DecisionRow.key.in_(sorted(keys)))
        return self._all(statement.order_by(DecisionRow.decided_us.desc(), DecisionRow.key), Decision)

    def candidates(
        self,
        type_name: str,
        *,
        machine_class: str | None = None,
        length: int | None = None,
        study: str | None = None,
        limit: int = CANDIDATES_LIMIT,
    ) -> list[Candidate]:
        """Give what is deployed to each group for a class of dataset, as far as choosing needs it.

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
            .where(DeploymentRow.type_name == type_name)
            .order_by(same_length, DecisionRow.decided_us.desc(), DecisionRow.key)
            .limit(limit)
        )
        if machine_class is not None:
            statement = statement.where(DeploymentRow.machine_class == machine_class)
        if study is not None:
            statement = statement.where(DeploymentRow.study == study)
        return self._candidates(statement)

    def candidates_of_study(self, study: str) -> list[Candidate]:
        """Give what is deployed to each group of one study, newest first."""
        statement = (
            _candidate_columns()
            .where(DeploymentRow.study == study)
            .order_by(DecisionRow.decided_us.desc(), DecisionRow.key)
            .limit(CANDIDATES_LIMIT)
        )
        return self._candidates(statement)

    def taken_back(self, type_name: str, *, machine_class: str, study: str | None = None) -> list[Candidate]:
        """Give the decisions for a class of dataset that were taken back last where nothing is deployed since.

        Args:
            type_name: Class of the dataset.
            machine_class: Class of the machine.
            study: Only this study; None is any.
        """
        newest = (
            select(func.max(DecisionEventRow.id))
            .where(DecisionEventRow.action == "rolled_back")
            .group_by(DecisionEventRow.group_digest)
        )
        statement = (
            select(*(getattr(DecisionRow, name) for name in Candidate.__slots__))
            .join(DecisionEventRow, DecisionEventRow.decision_key == DecisionRow.key)
            .join(DeploymentRow, DeploymentRow.group_digest == DecisionEventRow.group_digest)
            .where(
                DeploymentRow.decision_key.is_(None),
                DeploymentRow.type_name == type_name,
                DeploymentRow.machine_class == machine_class,
                DecisionEventRow.id.in_(newest),
            )
        )
        if study is not None:
            statement = statement.where(DeploymentRow.study == study)
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


def _candidate_columns() -> Select[Any]:
    columns = [getattr(DecisionRow, name) for name in Candidate.__slots__]
    return select(*columns).join(DeploymentRow, DeploymentRow.decision_key == DecisionRow.key)


def _field(name: str) -> str:
    if name not in CONFIG_FIELDS:
        raise SpecError(f"a pin is one of {', '.join(CONFIG_FIELDS)}, got {name!r}")
    return name
