"""Nights: what nightly runs did, and how far one that was killed had come."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select

from autotune.registry.rows import microseconds
from autotune.registry.tables import DecisionRow, DeploymentRow, NightlyRunRow, TrialRow
from autotune.registry.transactions import Transactions
from autotune.registry.writes import insert_into
from autotune.spec import NightlyReport


class Nights(Transactions):
    """The part of the registry that knows the nightly runs, and removes what is too old."""

    def save_night(self, report: NightlyReport) -> None:
        """Save a nightly run as far as it has come; a later state replaces an earlier one."""
        columns = {
            "key": report.key,
            "host": report.machine,
            "started_us": microseconds(report.started_at),
            "ended_us": None if report.ended_at is None else microseconds(report.ended_at),
            "exit_code": report.exit_code,
            "body": report.to_json(),
        }

        def work(connection: Connection) -> None:
            insert = insert_into(connection, NightlyRunRow)
            newer = {name: insert.excluded[name] for name in ("ended_us", "exit_code", "body")}
            connection.execute(insert.on_conflict_do_update(index_elements=["key"], set_=newer), columns)

        self._write(work)

    def nights(self, machine: str | None = None, *, limit: int | None = None) -> list[NightlyReport]:
        """Give nightly runs, newest first: of one machine or of all."""
        statement = select(NightlyRunRow.body).order_by(NightlyRunRow.started_us.desc(), NightlyRunRow.key).limit(limit)
        if machine is not None:
            statement = statement.where(NightlyRunRow.host == machine)
        return self._all(statement, NightlyReport)

    def prune_records(self, *, before: datetime) -> int:
        """Remove trial records that were started before a time, and say how many.

        What a study measured for a decision that is deployed stays, as another configuration may have to be served in
        its place: so does all from the decision before it on, and the newest search trial of each configuration, which
        later searches may have taken as known. Decisions stay for ever, and carry their evidence.
        """

        def work(connection: Connection) -> int:
            removed = 0
            for study in connection.execute(select(TrialRow.study).distinct()).scalars().all():
                needed_us = _needed_from_us(connection, study)
                until_us = min([microseconds(before), *needed_us])
                old = delete(TrialRow).where(TrialRow.study == study, TrialRow.started_us < until_us)
                if needed_us:
                    old = old.where(TrialRow.key.not_in(_newest_trials(study)))
                removed += connection.execute(old).rowcount
            return removed

        return self._write(work)


def _needed_from_us(connection: Connection, study: str) -> list[int]:
    """Give the time from which a study's records are needed, that of the decision before its oldest deployed one."""
    deployed = select(DeploymentRow.decision_key).where(DeploymentRow.study == study)
    oldest = connection.execute(select(func.min(DecisionRow.decided_us)).where(DecisionRow.key.in_(deployed))).scalar()
    if oldest is None:
        return []
    earlier = select(func.max(DecisionRow.decided_us)).where(
        DecisionRow.study == study, DecisionRow.decided_us < oldest
    )
    return [connection.execute(earlier).scalar() or 0]


def _newest_trials(study: str) -> Select[Any]:
    """Select the newest search trial of each configuration under each circumstances."""
    circumstances = (TrialRow.workload_digest, TrialRow.dataset_digest, TrialRow.machine_class, TrialRow.config)
    age = func.row_number().over(partition_by=circumstances, order_by=TrialRow.started_us.desc())
    trials = (
        select(TrialRow.key, age.label("age")).where(TrialRow.study == study, TrialRow.phase == "search").subquery()
    )
    return select(trials.c.key).where(trials.c.age == 1)
