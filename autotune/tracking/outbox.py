"""What a tracker is yet to be told, as it is kept until it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from autotune.spec import Value

TellingKind = Literal["start", "inspected", "phase", "profile", "trial", "decision", "report", "end"]


class PendingRow(Protocol):
    """One row of the outbox that is not settled."""

    @property
    def key(self) -> str:
        """Key under which it was added."""

    @property
    def body(self) -> str:
        """What to tell."""

    @property
    def attempts(self) -> int:
        """Times that telling it has failed."""


class Outbox(Protocol):
    """Rows that survive this process, told at least once; the registry has them."""

    def outbox_add(self, key: str, topic: str, body: str) -> None:
        """Keep a row; adding a topic and key again changes nothing, even after it was settled."""

    def outbox_pending(self, topic: str, limit: int) -> Sequence[PendingRow]:
        """Give the oldest rows of a topic that are not settled, in the order in which they were added."""

    def outbox_settle(self, topic: str, key: str) -> None:
        """Note that a row was told."""

    def outbox_failed(self, topic: str, key: str, message: str) -> None:
        """Note that telling a row failed; it stays pending."""


class Telling(Value):
    """The body of a row: everything that is needed to tell it from another process, days later.

    Attributes:
        kind: Which event it was.
        run_key: Key of the study's run.
        study: Name of the study.
        at_ms: Time of the event in milliseconds of UTC; what is told bears it, however late it is told.
        value: JSON form of the event's value.
    """

    kind: TellingKind
    run_key: str
    study: str
    at_ms: int
    value: str
