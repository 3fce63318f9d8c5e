"""Leases in the database: its clock says when they end, and a token that grows fences late writers off.

PostgreSQL's clock is the server's. SQLite has none of its own: as its file is read on one machine alone, that
machine's monotonic clock serves, which nobody sets.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, select, text, update

from autotune.errors import LeaseLostError
from autotune.registry.tables import LeaseRow
from autotune.registry.writes import insert_once
from autotune.spec import Lease

LEASE_S = 300.0
"""Life of a lease that is not renewed: longer than the outages that a study waits out, short enough for a night."""

_SERVER_CLOCK = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)")
_LIFE_US = round(LEASE_S * 1e6)


def now_us(connection: Connection) -> int:
    """Give the time of the clock that leases go by, in microseconds."""
    if connection.dialect.name == "postgresql":
        return int(connection.execute(_SERVER_CLOCK).scalar_one())
    return time.monotonic_ns() // 1000


def wall_us(connection: Connection) -> int:
    """Give the database's time of day in microseconds since the epoch; SQLite's is this machine's."""
    return now_us(connection) if connection.dialect.name == "postgresql" else time.time_ns() // 1000


def make_sure_of(connection: Connection, name: str) -> None:
    """Have a row for a lease, so that it can be locked: of two who come first at once one waits for the other."""
    nobody = {"name": name, "holder": "", "process": "", "token": 0, "expires_us": 0, "purpose": ""}
    insert_once(connection, LeaseRow, nobody)


def locked(connection: Connection, name: str) -> Row[Any] | None:
    """Give a lease's row and keep it from changing until the transaction ends; None where there never was one."""
    statement = select(LeaseRow.__table__).where(LeaseRow.name == name).with_for_update()
    return connection.execute(statement).first()


def is_running(connection: Connection, row: Row[Any], now: int) -> bool:
    """Tell whether a lease has not expired.

    By a monotonic clock one that ends too far ahead is of another boot. A server's clock may have been set back.
    """
    monotonic = connection.dialect.name != "postgresql"
    return bool(now < row.expires_us and not (monotonic and row.expires_us > now + _LIFE_US))


def take(connection: Connection, name: str, *, holder: str, process: str, purpose: str) -> Lease:
    """Take a lease that is free, under a token that is new; the row is locked."""
    now = now_us(connection)
    changed = {"holder": holder, "process": process, "purpose": purpose, "expires_us": now + _LIFE_US}
    statement = update(LeaseRow).where(LeaseRow.name == name).values(token=LeaseRow.token + 1, **changed)
    connection.execute(statement)
    row = connection.execute(select(LeaseRow.__table__).where(LeaseRow.name == name)).one()
    return as_lease(row, now)


def renew(connection: Connection, lease: Lease) -> Lease:
    """Have a lease end later.

    Raises:
        LeaseLostError: It has expired or changed hands.
    """
    check_held(connection, lease)
    now = now_us(connection)
    connection.execute(update(LeaseRow).where(LeaseRow.name == lease.name).values(expires_us=now + _LIFE_US))
    return lease.replace(expires_at=_wall(now + _LIFE_US, now))


def release(connection: Connection, lease: Lease) -> None:
    """Let a lease go; the row stays, so that tokens go on growing. One that was lost is left alone."""
    connection.execute(
        update(LeaseRow).where(LeaseRow.name == lease.name, LeaseRow.token == lease.token).values(expires_us=0)
    )


def check_held(connection: Connection, lease: Lease) -> None:
    """Refuse to go on under a lease that was lost; until the transaction ends nobody can take it.

    Raises:
        LeaseLostError: It has expired or changed hands.
    """
    row = locked(connection, lease.name)
    if row is not None and row.token == lease.token and is_running(connection, row, now_us(connection)):
        return
    taken = row is not None and row.token != lease.token
    whose = f"{row.holder} has it since" if row is not None and taken else "it was not renewed in time"
    raise LeaseLostError(
        f"the lease of {lease.name} ({lease.purpose}) is lost: {whose}; nothing was written. "
        "Run the same command again, it goes on with what was kept"
    )


def as_lease(row: Row[Any], now: int) -> Lease:
    """Give the value of a row."""
    return Lease(
        name=row.name,
        holder=row.holder,
        process=row.process,
        token=row.token,
        expires_at=_wall(row.expires_us, now),
        purpose=row.purpose,
    )


def _wall(expires_us: int, now: int) -> datetime:
    return datetime.now(UTC) + timedelta(microseconds=expires_us - now)
