"""Transactions: repeated for a bounded time where the database is locked or away, refused under a lost lease."""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, Select

from autotune.errors import RegistryError, SpecError
from autotune.registry import lease_rows
from autotune.registry.engine import reading, writing
from autotune.registry.waiting import patiently
from autotune.spec import Lease, Value

T = TypeVar("T")
V = TypeVar("V", bound=Value)


class Transactions:
    """The database of a registry, opened; what its parts have in common.

    Every method of a part is one transaction. Where the database is locked or away it is repeated for a bounded
    time and then raises `RegistryError`; a transaction is written whole or not at all.

    Args:
        engine: Connected to tables of the newest version.
        place: Where the registry is, for messages.
        wait_s: Longest wait for a lock or a server.
        fences: Leases without which nothing is written.
    """

    def __init__(self, engine: Engine, *, place: str, wait_s: float, fences: Collection[Lease] = ()) -> None:
        self._engine = engine
        self._wait_s = wait_s
        self._fences = fences
        self.place = place

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection, so that none is open when the process forks."""
        self._engine.dispose()

    def _write(self, work: Callable[[Connection], T]) -> T:
        def once() -> T:
            with writing(self._engine) as connection, connection.begin():
                for lease in self._fences:
                    lease_rows.check_held(connection, lease)
                return work(connection)

        return patiently(once, wait_s=self._wait_s, place=self.place)

    def _read(self, work: Callable[[Connection], T]) -> T:
        def once() -> T:
            with reading(self._engine) as connection:
                return work(connection)

        return patiently(once, wait_s=self._wait_s, place=self.place)

    def _first(self, statement: Select[Any], kind: type[V]) -> V | None:
        body = self._read(lambda connection: connection.execute(statement).scalar())
        return None if body is None else self._parse(kind, body)

    def _all(self, statement: Select[Any], kind: type[V]) -> list[V]:
        bodies = self._read(lambda connection: connection.execute(statement).scalars().all())
        return [self._parse(kind, body) for body in bodies]

    def _parse(self, kind: type[V], body: str) -> V:
        try:
            return kind.from_json(body)
        except SpecError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, told: object) -> RegistryError:
        return RegistryError(
            f"the registry {self.place} holds a row that cannot be read ({told}); restore a copy, "
            "or move the file away and tune again"
        )
