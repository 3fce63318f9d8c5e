"""PostgreSQL: connections that give a silent server up, and one schema for each program in one database."""

from __future__ import annotations

import functools
import time
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text

from autotune.registry.driver_errors import DRIVER_ERRORS, as_registry_error

if TYPE_CHECKING:
    import psycopg

REGISTRY_SCHEMA = "autotune"
OPTUNA_SCHEMA = "optuna"

CONNECT: Mapping[str, str] = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""A server that is away or whose packets are dropped is given up after about ten seconds, not after hours."""
ANSWER_S = 15.0
"""Longest wait for an answer: no statement of ours takes a second, and a server that is stopped still acknowledges
packets, so that the network alone never notices."""
READ_ANSWER_S = 5.0
"""The same for reading alone, which training waits for."""

_DRIVER = "postgresql+psycopg"
_SEARCH_PATH = "-csearch_path="
_ADVISORY_LOCK = 7_305_803_142
"""Any number that is ours: of two processes that make a schema at once one waits."""


def in_schema(url: URL, schema: str) -> URL:
    """Give the address of a schema of a database; a search path that the address names already stays."""
    if _SEARCH_PATH in _options(url):
        return url.set(drivername=_DRIVER)
    options = f"{_options(url)} {_SEARCH_PATH}{schema}".strip()
    return url.set(drivername=_DRIVER).update_query_dict({"options": options})


def optuna_url(url: str) -> str | None:
    """Give the address of Optuna's schema in the database of the registry; None where that is no PostgreSQL."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        return None
    kept = " ".join(word for word in _options(parsed).split() if not word.startswith(_SEARCH_PATH))
    bare = parsed.difference_update_query(["options"])
    if kept:
        bare = bare.update_query_dict({"options": kept})
    return in_schema(bare.update_query_dict(dict(CONNECT)), OPTUNA_SCHEMA).render_as_string(hide_password=False)


def schema_of(url: URL) -> str:
    """Name the schema of an address; empty where it names none."""
    return next(
        (word.removeprefix(_SEARCH_PATH) for word in _options(url).split() if word.startswith(_SEARCH_PATH)), ""
    )


def make_engine(url: URL, *, reads: bool = False) -> Engine:
    """Give an engine whose connections give a server up that does not answer.

    Args:
        url: Address of a schema.
        reads: Whether it is for reading alone, which waits for less long.
    """
    engine = create_engine(url, connect_args=dict(CONNECT), pool_pre_ping=True)

    def connect(_dialect: Any, _record: Any, arguments: list[Any], settings: dict[str, Any]) -> Any:
        return _connection_class(READ_ANSWER_S if reads else ANSWER_S).connect(*arguments, **settings)

    event.listen(engine, "do_connect", connect)
    return engine


def table_in_default_schema(connection: Connection, table: str) -> str | None:
    """Name the schema that an address without one leads to, where it holds a table and the registry's own is meant."""
    if schema_of(connection.engine.url) != REGISTRY_SCHEMA:
        return None
    found = connection.execute(
        text(
            "SELECT table_schema FROM information_schema.tables WHERE table_name = :name "
            "AND table_schema IN ('public', CURRENT_USER) AND table_schema <> :own"
        ),
        {"name": table, "own": REGISTRY_SCHEMA},
    )
    return found.scalars().first()


def make_schema(connection: Connection) -> None:
    """Make the schema that the connection looks into, where it is absent; needs the right to only then."""
    schema = schema_of(connection.engine.url)
    if not schema or _has_schema(connection, schema):
        return
    connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ADVISORY_LOCK})
    if not _has_schema(connection, schema):
        quoted = connection.dialect.identifier_preparer.quote_schema(schema)
        connection.execute(text(f"CREATE SCHEMA {quoted}"))


def make_schema_of(url: str) -> None:
    """Make the schema that an address of PostgreSQL names, where it is absent.

    Raises:
        RegistryError: The server cannot be reached, or refuses.
    """
    parsed = make_url(url)
    engine = make_engine(parsed)
    try:
        with engine.begin() as connection:
            make_schema(connection)
    except DRIVER_ERRORS as error:
        raise as_registry_error(error, parsed.set(query={}).render_as_string()) from error
    finally:
        engine.dispose()


def _has_schema(connection: Connection, schema: str) -> bool:
    found = connection.execute(text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": schema})
    return found.first() is not None


def _options(url: URL) -> str:
    options = url.query.get("options", "")
    joined = options if isinstance(options, str) else " ".join(options)
    return joined.replace("-c ", "-c")


@functools.cache
def _connection_class(answer_s: float) -> type[psycopg.Connection[Any]]:
    import psycopg

    class GivingUp(psycopg.Connection[Any]):
        """A connection that is closed where the server does not answer."""

        def wait(self, gen: Any, *arguments: Any, **settings: Any) -> Any:
            return super().wait(_limited(gen, self, answer_s), *arguments, **settings)

    return GivingUp


def _limited(
    waiting: Generator[Any, Any, Any], connection: psycopg.Connection[Any], answer_s: float
) -> Generator[Any, Any, Any]:
    """Hand a driver's waiting on, until it takes too long."""
    import psycopg

    deadline = time.monotonic() + answer_s
    ready = None
    while True:
        try:
            wanted = waiting.send(ready)
        except StopIteration as end:
            return end.value
        ready = yield wanted
        if not ready and time.monotonic() > deadline:
            connection.pgconn.finish()
            raise psycopg.OperationalError(f"the server did not answer within {answer_s:.0f} s")
