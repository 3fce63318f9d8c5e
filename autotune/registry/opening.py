"""Opening a registry: the version is one SELECT; Alembic is only loaded where tables are missing or old."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from autotune.errors import RegistryError
from autotune.registry.driver_errors import DRIVER_ERRORS
from autotune.registry.engine import (
    Access,
    make_engine,
    place_of,
    reading_engine,
    registry_url,
    use_write_ahead_log,
    writing,
)
from autotune.registry.postgresql import table_in_default_schema
from autotune.registry.separation import check_not_foreign
from autotune.registry.store import Registry
from autotune.registry.tables import VERSION_TABLE
from autotune.registry.waiting import SERVER_WAIT_S, SQLITE_WAIT_S, patiently
from autotune.spec import Lease

HEAD = "0004"
"""The newest migration; a test compares it with Alembic's own answer."""

READ_WAIT_S = 2.0
"""Training does not wait longer than this for a locked registry: it has a safe default to go on with."""

_logger = logging.getLogger(__name__)
_SELECT_VERSION = text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a constant


def open_registry(
    home: Path, url: str | None = None, *, wait_s: float | None = None, fences: Collection[Lease] = ()
) -> Registry:
    """Open the registry for writing, creating or migrating its tables where needed.

    Args:
        home: Home folder; the default is the SQLite file `registry.db` in it.
        url: Address of another SQLite file or a PostgreSQL database.
        wait_s: Longest wait for a lock or a server; None is 30 s for SQLite and 120 s for a server.
        fences: Leases without which nothing is written: `LeaseLostError` says so then.

    Raises:
        RegistryError: The database cannot be opened, is damaged, locked, or newer than this program.
        StorageMixedError: Optuna or MLflow owns the database.
    """
    address = registry_url(home, url)
    place = place_of(address)
    if address.get_backend_name() == "sqlite":
        _make_folder(Path(str(address.database)).parent, place)
        wait_s = SQLITE_WAIT_S if wait_s is None else wait_s
    engine = make_engine(address, "create")
    wait_s = SERVER_WAIT_S if wait_s is None else wait_s
    try:
        patiently(lambda: _prepare(engine, place), wait_s=wait_s, place=place)
    except BaseException:
        engine.dispose()
        raise
    return Registry(engine, place=place, wait_s=wait_s, fences=fences)


def open_existing(
    home: Path, url: str | None = None, *, access: Access = "read", wait_s: float = READ_WAIT_S
) -> Registry:
    """Open a registry that is there; nothing is created or migrated.

    Args:
        home: Home folder.
        url: Address of another database.
        access: `read`, or `write` to change rows.
        wait_s: Longest wait for a lock or a server.

    Raises:
        RegistryError: There is none, or it cannot be used as it is.
    """
    address = registry_url(home, url)
    place = place_of(address)
    if address.get_backend_name() == "sqlite":
        _check_exists(Path(str(address.database)), place)
    engine = reading_engine(address) if access == "read" else make_engine(address, access)
    try:
        version = patiently(lambda: _version(engine, place), wait_s=wait_s, place=place)
        _check_version(version, place)
    except BaseException:
        engine.dispose()
        raise
    return Registry(engine, place=place, wait_s=wait_s)


def _check_exists(path: Path, place: str) -> None:
    try:
        found = path.exists()
    except OSError as error:
        raise RegistryError(
            f"the registry {place} cannot be looked for ({error}); name a folder that you may read with --home"
        ) from error
    if not found:
        raise RegistryError(f"there is no registry at {place}; run autotune tune first, or name its folder with --home")


def _make_folder(folder: Path, place: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegistryError(f"the registry {place} has no folder ({error}); name another one with --home") from error


def _prepare(engine: Engine, place: str) -> None:
    with engine.connect() as connection:
        check_not_foreign(connection, place)
        new = not inspect(connection).has_table(VERSION_TABLE)
        if new:
            _check_not_in_default_schema(connection, place)
    use_write_ahead_log(engine)
    # A new registry is the common case after `tune` in a script, and SQLAlchemy's errors live in reference cycles that
    # hold the frames of all callers: whatever loader a script makes next to it would outlive its last name.
    version = None if new else _version(engine, place)
    if version == HEAD:
        return
    from autotune.registry.migrate import known_versions, upgrade

    if version is not None and version not in known_versions():
        raise RegistryError(_newer(version, place))
    _logger.info("bringing the registry %s from version %s to %s", place, version or "none", HEAD)
    with writing(engine) as connection, connection.begin():
        upgrade(connection)


def _check_not_in_default_schema(connection: Connection, place: str) -> None:
    """Refuse to begin a registry beside one that lies where a connection without a schema looks."""
    if connection.dialect.name != "postgresql":
        return
    schema = table_in_default_schema(connection, VERSION_TABLE)
    if schema is not None:
        raise RegistryError(
            f"{place} holds no registry, but the schema {schema} of the same database does; to go on with that one add "
            f"?options=-csearch_path%3D{schema} to AUTOTUNE_STORAGE, to begin a new one drop its tables"
        )


def _version(engine: Engine, place: str) -> str | None:
    try:
        with engine.connect() as connection:
            found = connection.execute(_SELECT_VERSION).scalars().all()
    except DRIVER_ERRORS:
        # a missing table and a damaged file look alike to some drivers: ask for the table by name
        with engine.connect() as connection:
            if inspect(connection).has_table(VERSION_TABLE):
                raise
            _check_not_in_default_schema(connection, place)
        return None
    return found[0] if found else None


def _check_version(version: str | None, place: str) -> None:
    if version == HEAD:
        return
    if version is None:
        raise RegistryError(f"{place} holds no registry; run autotune tune first, or name another folder with --home")
    if version < HEAD:
        raise RegistryError(f"the registry {place} is of an older version ({version}); any autotune tune migrates it")
    raise RegistryError(_newer(version, place))


def _newer(version: str, place: str) -> str:
    return (
        f"the registry {place} was written by a newer autotune (version {version}, this one knows {HEAD}); "
        "update autotune, or name another folder with --home"
    )
