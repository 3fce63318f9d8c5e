"""What the database drivers' errors mean, by code and never by text."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from autotune.errors import RegistryError

DRIVER_ERRORS = (SQLAlchemyError, sqlite3.Error, UnicodeDecodeError)
"""Everything that a database can raise: SQLite's own comes unwrapped where a connection is being made.

SQLite's driver gives a `UnicodeDecodeError` for a message about text that is damaged inside the file.
"""

_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_UNREADABLE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_AUTH)
_OUT_OF_SPACE = sqlite3.SQLITE_FULL
_READ_ONLY = sqlite3.SQLITE_READONLY
_POSTGRESQL_PASSING = ("08", "53", "57P", "40")
"""Classes of SQLSTATE that pass: connection, resources, operator intervention, transaction rolled back."""


def is_passing(error: Exception) -> bool:
    """Say whether waiting helps: a locked SQLite file, a PostgreSQL server that is away."""
    code = _sqlite_code(error)
    if code is not None:
        return code in _LOCKED
    cause = error.orig if isinstance(error, DBAPIError) else None
    if cause is None:
        return False
    state = getattr(cause, "sqlstate", None)
    if state is None:
        # psycopg: a server that could not be reached, or went away, has no SQLSTATE
        return type(cause).__name__ in ("OperationalError", "ConnectionTimeout")
    return str(state).startswith(_POSTGRESQL_PASSING)


def as_registry_error(error: Exception, place: str) -> RegistryError:
    """Give the error that says where the registry is, what is wrong with it and what helps."""
    code = _sqlite_code(error)
    told = _told(error)
    if code in _LOCKED or (code is None and is_passing(error)):
        return RegistryError(
            f"the registry {place} is locked or cannot be reached ({told}); "
            "end the program that holds it, or start the server, and try again"
        )
    if code in _DAMAGED or isinstance(error, UnicodeDecodeError):
        return RegistryError(
            f"the registry {place} is damaged ({told}); restore a copy, or move the file away and tune again"
        )
    if code in _UNREADABLE:
        return RegistryError(
            f"the registry {place} cannot be opened ({told}); check that it is a file that you may read and write, "
            "or name another folder with --home"
        )
    if code == _OUT_OF_SPACE:
        return RegistryError(f"no space is left for the registry {place} ({told}); free some, nothing was written")
    if code == _READ_ONLY:
        return RegistryError(f"the registry {place} cannot be written ({told}); name a folder that can be with --home")
    return RegistryError(f"the registry {place} refused a statement ({told}); it may not be a registry of autotune")


def _sqlite_code(error: Exception) -> int | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF  # the low byte is the primary code


def _told(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
