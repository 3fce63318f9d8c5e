"""Studies that somebody asked for, in the order in which they were asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select, text, update

from autotune.registry.rows import microseconds, time_of
from autotune.registry.tables import QueuedStudyRow
from autotune.registry.writes import insert_once
from autotune.spec import QueuedStudy, QueueState

_AS_ASKED = (QueuedStudyRow.requested_us, QueuedStudyRow.key)


def add(connection: Connection, wanted: QueuedStudy) -> QueuedStudy:
    """Queue a study; one that is queued already, and that no machine has taken yet, is not queued twice."""
    if connection.dialect.name == "postgresql":  # SQLite has one writer at a time anyway
        connection.execute(text(f"LOCK TABLE {QueuedStudyRow.__tablename__} IN SHARE ROW EXCLUSIVE MODE"))
    again = _rows(connection, QueuedStudyRow.study == wanted.study, QueuedStudyRow.state == "queued")
    if again:
        return again[0]
    columns = wanted.model_dump(exclude={"requested_at", "started_at", "ended_at"})
    insert_once(connection, QueuedStudyRow, {**columns, "requested_us": microseconds(wanted.requested_at)})
    return wanted


def find(connection: Connection, key: str) -> QueuedStudy | None:
    """Give the entry with this key; None where there is none."""
    found = _rows(connection, QueuedStudyRow.key == key)
    return found[0] if found else None


def entries(connection: Connection, state: QueueState | None, limit: int) -> list[QueuedStudy]:
    """Give entries in the order in which they were asked for: of one state or of all."""
    return _rows(connection, *([] if state is None else [QueuedStudyRow.state == state]), limit=limit)


def ended(connection: Connection, limit: int) -> list[QueuedStudy]:
    """Give the entries that ended last, the newest end first."""
    order = (QueuedStudyRow.ended_us.desc(), QueuedStudyRow.key)
    return _rows(connection, QueuedStudyRow.ended_us.is_not(None), limit=limit, order=order)


def take(connection: Connection, key: str, machine: str, at: datetime) -> bool:
    """Have a machine run an entry; give whether it was still queued."""
    taken = (
        update(QueuedStudyRow)
        .where(QueuedStudyRow.key == key, QueuedStudyRow.state == "queued")
        .values(state="running", machine=machine, started_us=microseconds(at))
    )
    if connection.execute(taken).rowcount == 1:
        return True
    entry = find(connection, key)  # its own already, where the transaction is repeated
    return entry is not None and (entry.state, entry.machine, entry.started_at) == ("running", machine, at)


def cancel(connection: Connection, key: str, by: str, at: datetime) -> QueuedStudy | None:
    """Cancel an entry that no machine has taken, and give it as it is then; None where there is none."""
    connection.execute(
        update(QueuedStudyRow)
        .where(QueuedStudyRow.key == key, QueuedStudyRow.state == "queued")
        .values(state="cancelled", ended_us=microseconds(at), message=f"cancelled by {by}".replace("\0", ""))
    )
    return find(connection, key)


def end(connection: Connection, key: str, state: QueueState, *, message: str, at: datetime) -> None:
    """Note what an entry came to, unless it has ended."""
    open_states = ("queued", "running")
    connection.execute(
        update(QueuedStudyRow)
        .where(QueuedStudyRow.key == key, QueuedStudyRow.state.in_(open_states))
        .values(state=state, ended_us=microseconds(at), message=message.replace("\0", ""))
    )


def requeue(connection: Connection, machine: str, apart_from: Collection[str]) -> None:
    """Queue the entries of a machine again."""
    running = (QueuedStudyRow.machine == machine, QueuedStudyRow.state == "running")
    again = {"state": "queued", "machine": None, "started_us": None}
    connection.execute(update(QueuedStudyRow).where(*running, QueuedStudyRow.key.not_in(apart_from)).values(**again))


def _rows(
    connection: Connection, *conditions: Any, limit: int = 1, order: Sequence[Any] = _AS_ASKED
) -> list[QueuedStudy]:
    statement = select(*QueuedStudyRow.__table__.columns).where(*conditions).order_by(*order).limit(limit)
    return [_entry(row) for row in connection.execute(statement)]


def _entry(row: Row[Any]) -> QueuedStudy:
    return QueuedStudy(
        key=row.key,
        study=row.study,
        requested_by=row.requested_by,
        requested_at=time_of(row.requested_us),
        state=row.state,
        machine=row.machine,
        started_at=None if row.started_us is None else time_of(row.started_us),
        ended_at=None if row.ended_us is None else time_of(row.ended_us),
        message=row.message,
    )
