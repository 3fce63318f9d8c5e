"""Engines: how each kind of database is connected to so that it waits for a bounded time and loses nothing."""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from autotune.errors import RegistryError, SpecError
from autotune.registry import postgresql

DATABASE_FILE = "registry.db"
"""Name of the SQLite file in the home folder."""
STORAGE_VARIABLE = "AUTOTUNE_STORAGE"
"""Environment variable with the address of another database."""

BUSY_S = 1.0
"""SQLite waits this long for a lock within one attempt; the attempts together are bounded by the registry."""

Access = Literal["create", "write", "read"]
_WRITES = "autotune_writes"
_WRITE_PRAGMAS = "PRAGMA foreign_keys=ON; PRAGMA synchronous=NORMAL"
_READ_PRAGMAS = "PRAGMA query_only=ON"


def registry_url(home: Path, url: str | None = None) -> URL:
    """Give the address of the registry: the one given, else the SQLite file in the home folder.

    In a PostgreSQL database it is the schema `autotune`, unless the address names a search path.

    Raises:
        SpecError: It is neither a SQLite file nor PostgreSQL.
    """
    if url is None:
        return URL.create("sqlite", database=str(home.absolute() / DATABASE_FILE))
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SpecError(
            f"a registry's address has the form sqlite:///file or postgresql://user@host/database: {error}"
        ) from None
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return postgresql.in_schema(parsed, postgresql.REGISTRY_SCHEMA)
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed.set(drivername="sqlite", database=str(Path(parsed.database).absolute()), query={})
    shown = parsed.render_as_string()
    raise SpecError(f"a registry is a SQLite file or a PostgreSQL database, got {shown}; write sqlite:///registry.db")


def registry_address(home: Path, url: str | None = None) -> str:
    """Give the address of the registry as text, its password included.

    Raises:
        SpecError: It is neither a SQLite file nor PostgreSQL.
    """
    return registry_url(home, url).render_as_string(hide_password=False)


@functools.lru_cache(maxsize=4)
def reading_engine(url: URL) -> Engine:
    """Give the engine that reads a registry, the same each time: what it knows of statements is worth 3 ms.

    It is left without connections, so that sharing it, and forking, are safe.
    """
    return make_engine(url, "read")


def make_engine(url: URL, access: Access) -> Engine:
    """Give an engine that has not connected yet.

    Args:
        url: What `registry_url` gave.
        access: `create` may make a SQLite file, `write` needs one that is there, `read` changes nothing.

    Raises:
        RegistryError: The PostgreSQL driver is not installed.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(Path(url.database or ""), access)
    try:
        return postgresql.make_engine(url, reads=access == "read")
    except ImportError as error:
        raise RegistryError(
            f"the registry {place_of(url)} needs the driver psycopg ({error}); "
            "install it with: pip install 'dataloader-autotune[postgresql]'"
        ) from error


def writing(engine: Engine) -> Connection:
    """Connect for a transaction that writes, which takes SQLite's write lock at its begin.

    A transaction that reads first and asks for the lock later can be refused at once, without any waiting.
    """
    return engine.connect().execution_options(**{_WRITES: True})


def reading(engine: Engine) -> Connection:
    """Connect to read: on PostgreSQL each statement for itself, which saves a begin and an end on the way there.

    What it sees is the same: at PostgreSQL's usual isolation each statement sees what is committed when it begins.
    """
    connection = engine.connect()
    return connection if engine.dialect.name == "sqlite" else connection.execution_options(isolation_level="AUTOCOMMIT")


def use_write_ahead_log(engine: Engine) -> None:
    """Let readers and one writer go on at the same time; SQLite remembers it in the file."""
    if engine.dialect.name == "sqlite":
        pooled = engine.raw_connection()
        try:
            pooled.cursor().execute("PRAGMA journal_mode=WAL")
        finally:
            pooled.close()


def place_of(url: URL) -> str:
    """Write where a registry is, without the password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return f"{url.set(drivername='postgresql', query={}).render_as_string()} (schema {postgresql.schema_of(url)})"


def _sqlite_engine(path: Path, access: Access) -> Engine:
    engine = create_engine("sqlite://", creator=_sqlite_creator(path, access), poolclass=QueuePool)
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _sqlite_creator(path: Path, access: Access) -> Callable[[], sqlite3.Connection]:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{path.as_uri()}?{_sqlite_mode(path, access)}",
            uri=True,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.executescript(_READ_PRAGMAS if access == "read" else _WRITE_PRAGMAS)
        return connection

    return connect


def _sqlite_mode(path: Path, access: Access) -> str:
    if access == "create":
        return "mode=rwc"
    if access == "read" and not os.access(path.parent, os.W_OK) and not _write_ahead_log(path).exists():
        return "mode=ro&immutable=1"  # in a folder that cannot be written WAL has no place for its shared memory
    return "mode=rw"


def _write_ahead_log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")
