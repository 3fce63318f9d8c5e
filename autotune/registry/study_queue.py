"""The queue: studies that somebody asked for, each run once by one machine."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Literal

from autotune.errors import ConflictError
from autotune.registry import queue_rows
from autotune.registry.transactions import Transactions
from autotune.spec import QueuedStudy, QueueState


class StudyQueue(Transactions):
    """The part of the registry that knows what was asked for."""

    def queue_study(self, wanted: QueuedStudy) -> QueuedStudy:
        """Queue a study and give its entry: the one that waits already, where there is one."""
        return self._write(lambda connection: queue_rows.add(connection, wanted))

    def queued_study(self, key: str) -> QueuedStudy | None:
        """Give the entry with this key; None where there is none."""
        return self._read(lambda connection: queue_rows.find(connection, key))

    def queued_studies(self, state: QueueState | None = None, *, limit: int = 1000) -> list[QueuedStudy]:
        """Give entries in the order in which they were asked for: of one state or of all."""
        return self._read(lambda connection: queue_rows.entries(connection, state, limit))

    def ended_studies(self, *, limit: int) -> list[QueuedStudy]:
        """Give the entries that ended last, done, failed or cancelled: the newest end first."""
        return self._read(lambda connection: queue_rows.ended(connection, limit))

    def take_queued_study(self, key: str, *, machine: str, at: datetime) -> bool:
        """Have a machine run a queued study; False where another one was faster, or it was cancelled."""
        return self._write(lambda connection: queue_rows.take(connection, key, machine, at))

    def cancel_queued_study(self, key: str, *, by: str, at: datetime) -> QueuedStudy | None:
        """Have a queued study not run, and give its entry; None where there is none with this key.

        Raises:
            ConflictError: A machine has taken it already.
        """
        entry = self._write(lambda connection: queue_rows.cancel(connection, key, by, at))
        if entry is not None and entry.state != "cancelled":
            raise ConflictError(
                f"what waits in the queue is cancelled, got {entry.study!r}, which {entry.machine} took at "
                f"{entry.started_at:%Y-%m-%d %H:%M:%S} UTC ({entry.state}); nothing was changed"
            )
        return entry

    def end_queued_study(self, key: str, state: Literal["done", "failed"], *, message: str, at: datetime) -> None:
        """Say what a queued study came to; nothing happens to one that has ended."""
        self._write(lambda connection: queue_rows.end(connection, key, state, message=message, at=at))

    def requeue_studies(self, machine: str, *, apart_from: Collection[str] = ()) -> None:
        """Queue again what a machine was running: it was killed, as its lease is held by somebody else now."""
        self._write(lambda connection: queue_rows.requeue(connection, machine, apart_from))
