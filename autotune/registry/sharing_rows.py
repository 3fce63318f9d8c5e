"""Shared studies and the machines that have joined them, in the database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update

from autotune.registry import lease_rows
from autotune.registry.tables import LeaseRow, SharedStudyRow, StudyMachineRow
from autotune.registry.writes import insert_into, insert_once
from autotune.spec import StudyMachine, StudySpec


def driving_lease(study: str) -> str:
    """Name the lease of whoever drives a study."""
    return f"study {study}"


def open_run(connection: Connection, spec: StudySpec, run: str) -> None:
    """Begin a run of a study; the machines of the one before are forgotten."""
    _forget_machines(connection, spec.name)
    columns = {
        "name": spec.name,
        "run": run,
        "body": spec.to_json(),
        "opened_us": lease_rows.now_us(connection),
        "ended_us": None,
    }
    insert = insert_into(connection, SharedStudyRow)
    newer = {name: insert.excluded[name] for name in ("run", "body", "opened_us", "ended_us")}
    connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=newer), columns)


def end_run(connection: Connection, study: str, run: str) -> bool:
    """Note that a run has come to its decisions; False where there is a later one."""
    ended = (
        update(SharedStudyRow)
        .where(SharedStudyRow.name == study, SharedStudyRow.run == run)
        .values(ended_us=lease_rows.now_us(connection))
    )
    if connection.execute(ended).rowcount != 1:
        return False
    _forget_machines(connection, study)
    return True


def find(connection: Connection, study: str) -> tuple[Row[Any], bool] | None:
    """Give the row of a study and whether somebody drives it; None where it was never shared."""
    row = connection.execute(select(SharedStudyRow.__table__).where(SharedStudyRow.name == study)).first()
    if row is None:
        return None
    lease = connection.execute(select(LeaseRow.__table__).where(LeaseRow.name == driving_lease(study))).first()
    now = lease_rows.now_us(connection)
    return row, lease is not None and lease_rows.is_running(connection, lease, now)


def join(connection: Connection, machine: StudyMachine, life_us: int) -> str | None:
    """Have a machine take part in a run; give the body of the first of its class, None where the run is over."""
    # of two that join at once the second sees the first
    statement = select(SharedStudyRow.run, SharedStudyRow.ended_us).where(SharedStudyRow.name == machine.study)
    current = connection.execute(statement.with_for_update()).first()
    if current is None or current.run != machine.run or current.ended_us is not None:
        return None
    first = first_of_class(connection, machine.study, machine.run, machine.machine_class)
    now = lease_rows.now_us(connection)
    columns = {
        "key": machine.key,
        "study": machine.study,
        "run": machine.run,
        "machine_class": machine.machine_class,
        "joined_us": now,
        "expires_us": now + life_us,
        "body": machine.to_json(),
    }
    insert_once(connection, StudyMachineRow, columns)
    return first or machine.to_json()


def stay(connection: Connection, worker: str, life_us: int) -> None:
    """Have a machine count as there for a while longer."""
    expires = lease_rows.now_us(connection) + life_us
    connection.execute(update(StudyMachineRow).where(StudyMachineRow.key == worker).values(expires_us=expires))


def leave(connection: Connection, worker: str) -> None:
    """Have a machine count as gone; its row stays, as its class goes by what the first of it found out."""
    connection.execute(update(StudyMachineRow).where(StudyMachineRow.key == worker).values(expires_us=0))


def present(connection: Connection, study: str, run: str) -> dict[str, int]:
    """Count the machines of each class that have joined a run, those that are there now."""
    statement = (
        select(StudyMachineRow.machine_class, func.count())
        .where(
            StudyMachineRow.study == study,
            StudyMachineRow.run == run,
            StudyMachineRow.expires_us > lease_rows.now_us(connection),
        )
        .group_by(StudyMachineRow.machine_class)
    )
    return {row[0]: row[1] for row in connection.execute(statement)}


def first_of_class(connection: Connection, study: str, run: str, machine_class: str) -> str | None:
    """Give the body of the machine of a class that joined first, whether it is still there or not."""
    statement = (
        select(StudyMachineRow.body)
        .where(
            StudyMachineRow.study == study,
            StudyMachineRow.run == run,
            StudyMachineRow.machine_class == machine_class,
        )
        .order_by(StudyMachineRow.joined_us, StudyMachineRow.key)
        .limit(1)
    )
    return connection.execute(statement).scalar()


def _forget_machines(connection: Connection, study: str) -> None:
    connection.execute(delete(StudyMachineRow).where(StudyMachineRow.study == study))
