"""Which archives are on this machine's disk, and when each was last used."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, delete, select, update

from autotune.registry.rows import ArchiveEntry, from_microseconds, microseconds
from autotune.registry.tables import ArchiveRow
from autotune.registry.writes import insert_into


def upsert(connection: Connection, entry: ArchiveEntry) -> None:
    """Note an archive, in place of one in the same folder."""
    columns = {
        "directory": entry.directory,
        "fingerprint": entry.fingerprint,
        "format": entry.format,
        "stored": entry.stored,
        "used_us": microseconds(entry.used_at),
        "body": entry.to_json(),
    }
    changed = {name: value for name, value in columns.items() if name != "directory"}
    insert = insert_into(connection, ArchiveRow)
    connection.execute(insert.values(**columns).on_conflict_do_update(index_elements=["directory"], set_=changed))


def touch(connection: Connection, directory: str) -> None:
    """Set the time of last use to now."""
    connection.execute(
        update(ArchiveRow).where(ArchiveRow.directory == directory).values(used_us=microseconds(datetime.now(UTC)))
    )


def delete_entry(connection: Connection, directory: str) -> None:
    """Remove the row, not the archive."""
    connection.execute(delete(ArchiveRow).where(ArchiveRow.directory == directory))


def entries(connection: Connection) -> list[ArchiveEntry]:
    """Give all archives, least recently used first."""
    rows = connection.execute(select(ArchiveRow.body, ArchiveRow.used_us).order_by(ArchiveRow.used_us))
    return [ArchiveEntry.from_json(body).replace(used_at=from_microseconds(used)) for body, used in rows]
