"""The outbox: what trackers are yet to be told, kept until they were."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select, update

from autotune.registry.rows import OutboxEntry
from autotune.registry.tables import OutboxRow
from autotune.registry.writes import insert_once


def insert(connection: Connection, tellings: Iterable[tuple[str, str, str]]) -> None:
    """Note topics, keys and bodies, each pair of topic and key once and for all."""
    for topic, key, body in tellings:
        insert_once(connection, OutboxRow, {"topic": topic, "key": key, "body": body})


def pending(connection: Connection, topic: str, limit: int) -> list[OutboxEntry]:
    """Give what is not settled, oldest first: a run's start is told before what happened in it."""
    statement = (
        select(OutboxRow.topic, OutboxRow.key, OutboxRow.body, OutboxRow.attempts, OutboxRow.message)
        .where(OutboxRow.topic == topic, OutboxRow.settled.is_(False))
        .order_by(OutboxRow.id)
        .limit(limit)
    )
    return [
        OutboxEntry(topic=row.topic, key=row.key, body=row.body, attempts=row.attempts, message=row.message)
        for row in connection.execute(statement)
    ]


def settle(connection: Connection, topic: str, key: str) -> None:
    """Mark an entry as told; the row stays without its body, so that it cannot be noted again."""
    connection.execute(
        update(OutboxRow)
        .where(OutboxRow.topic == topic, OutboxRow.key == key)
        .values(settled=True, body="", message=None)
    )


def count_failure(connection: Connection, topic: str, key: str, message: str) -> None:
    """Count an attempt and keep what it said."""
    connection.execute(
        update(OutboxRow)
        .where(OutboxRow.topic == topic, OutboxRow.key == key)
        .values(attempts=OutboxRow.attempts + 1, message=message.replace("\0", ""))
    )
