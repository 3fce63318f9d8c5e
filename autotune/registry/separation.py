"""Three programs, three databases: Optuna and MLflow both own a table `alembic_version`."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, Connection, inspect, make_url
from sqlalchemy.exc import ArgumentError

from autotune.errors import StorageMixedError

FOREIGN_TABLE = "alembic_version"

_LOCAL_HOSTS = ("", "localhost", "127.0.0.1", "::1")
_DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306}


def check_separate(registry: str, optuna: str | None, mlflow: str | None) -> None:
    """Refuse two programs pointed at one database.

    Args:
        registry: Address of the registry.
        optuna: Address of Optuna's storage; None where it has none.
        mlflow: Tracking URI of MLflow; an `http` server or a folder is no database of ours to check.

    Raises:
        StorageMixedError: Two of them are the same database and schema.
    """
    seen: dict[tuple[str, ...], str] = {}
    for owner, address in (("the registry", registry), ("Optuna", optuna), ("MLflow", mlflow)):
        target = None if address is None else _target(address)
        if target is None:
            continue
        if target in seen:
            raise StorageMixedError(
                f"{seen[target]} and {owner} must not share a database, got {_shown(str(address))} for both; "
                "give each its own file, or its own schema with ?options=-csearch_path%3Dname"
            )
        seen[target] = owner


def check_not_foreign(connection: Connection, place: str) -> None:
    """Refuse a database that Optuna or MLflow has made its own, before anything is written to it.

    Raises:
        StorageMixedError: It holds a table `alembic_version`.
    """
    if inspect(connection).has_table(FOREIGN_TABLE):
        raise StorageMixedError(
            f"the registry must not share a database with Optuna or MLflow, but {place} holds a table "
            f"{FOREIGN_TABLE}; give the registry its own file or schema (AUTOTUNE_STORAGE or --home)"
        )


def _target(address: str) -> tuple[str, ...] | None:
    try:
        url = make_url(address)
    except ArgumentError:
        return None
    backend = url.drivername.partition("+")[0].replace("postgres", "postgresql").replace("postgresqlql", "postgresql")
    if backend == "sqlite":
        in_memory = not url.database or url.database == ":memory:"
        return None if in_memory else ("sqlite", str(_file(url).resolve()))
    if backend not in _DEFAULT_PORTS:
        return None
    host = "" if (url.host or "") in _LOCAL_HOSTS else str(url.host)
    port = str(url.port or _DEFAULT_PORTS[backend])
    return (backend, host, port, url.database or url.username or "", _schema(url))


def _file(url: URL) -> Path:
    database = str(url.database).removeprefix("file:")
    return Path(database.partition("?")[0])


def _schema(url: URL) -> str:
    options = url.query.get("options", "")
    text = options if isinstance(options, str) else " ".join(options)
    return text.replace("-c ", "-c").strip()


def _shown(address: str) -> str:
    return make_url(address).render_as_string()
