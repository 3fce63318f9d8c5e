"""Inserting records and decisions, each at most once for its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from autotune.registry.rows import dataset_columns, decision_columns, machine_columns, trial_columns
from autotune.registry.tables import Base, DatasetRow, DecisionRow, MachineRow, TrialRow
from autotune.spec import DatasetFacts, Decision, MachineFacts, TrialRecord

Insert = sqlite.Insert | postgresql.Insert


def insert_into(connection: Connection, table: type[Base]) -> Insert:
    """Give the dialect's own INSERT, the one that knows ON CONFLICT."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def insert_once(connection: Connection, table: type[Base], columns: Mapping[str, Any]) -> None:
    """Insert a row unless one with its key is there."""
    connection.execute(insert_into(connection, table).on_conflict_do_nothing(), dict(columns))


def insert_record(connection: Connection, record: TrialRecord) -> None:
    """Insert a trial record with its machine and dataset."""
    _insert_facts(connection, record.machine, record.dataset)
    insert_once(connection, TrialRow, trial_columns(record))


def insert_decision(connection: Connection, decision: Decision) -> bool:
    """Insert a decision with its machine and dataset, and say whether it was not there yet."""
    _insert_facts(connection, decision.machine, decision.dataset)
    insert = insert_into(connection, DecisionRow).on_conflict_do_nothing().returning(DecisionRow.key)
    return connection.execute(insert, decision_columns(decision)).first() is not None


def _insert_facts(connection: Connection, machine: MachineFacts | None, dataset: DatasetFacts | None) -> None:
    if machine is not None:
        insert_once(connection, MachineRow, machine_columns(machine))
    if dataset is not None:
        insert_once(connection, DatasetRow, dataset_columns(dataset))
