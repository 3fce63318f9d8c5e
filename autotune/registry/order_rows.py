"""Orders of shared studies: taken by one worker at a time, answered once.

An order that was taken is free again when the worker has not renewed its claim in time, by the database's clock. The
token fences it off then: its answer is taken only as long as nobody else has taken the order over.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, and_, case, delete, exists, or_, select, update

from autotune.registry import lease_rows
from autotune.registry.tables import SharedStudyRow, TrialOrderRow
from autotune.registry.writes import insert_once
from autotune.spec import StudyMachine

ATTEMPTS_MAX = 3
"""Workers that may be lost while they measure one order: more, and it is the order that ends them."""


def place(connection: Connection, study: str, machine_class: str, *, key: str, body: str) -> None:
    """Ask the machines of a class to measure something."""
    columns = {
        "key": key,
        "study": study,
        "machine_class": machine_class,
        "body": body,
        "state": "open",
        "worker": "",
        "token": 0,
        "attempts": 0,
        "expires_us": 0,
        "created_us": lease_rows.now_us(connection),
        "answer": None,
    }
    insert_once(connection, TrialOrderRow, columns)


def withdraw(connection: Connection, keys: Collection[str]) -> None:
    """Have orders not measured; who answers one later is refused."""
    connection.execute(
        delete(TrialOrderRow).where(TrialOrderRow.key.in_(sorted(keys)), TrialOrderRow.state != "answered")
    )


def claim(connection: Connection, machine: StudyMachine, life_us: int) -> tuple[str, int] | None:
    """Take the order that waits longest for a machine; give its body and token, None where there is none.

    Orders that another worker is just taking are passed by. What the worker has taken already is given again, as a
    lost connection may have hidden that from it. A run that the machine has not joined has nothing for it: orders are
    those of the newest run.
    """
    now = lease_rows.now_us(connection)
    mine = and_(TrialOrderRow.worker == machine.key, TrialOrderRow.state == "taken", TrialOrderRow.expires_us > now)
    free = or_(TrialOrderRow.state == "open", and_(_lapsed(now), TrialOrderRow.attempts < ATTEMPTS_MAX))
    joined = exists().where(SharedStudyRow.name == machine.study, SharedStudyRow.run == machine.run)
    of_its_class = and_(TrialOrderRow.study == machine.study, TrialOrderRow.machine_class == machine.machine_class)
    statement = (
        select(TrialOrderRow.key, TrialOrderRow.body)
        .where(joined, of_its_class, or_(mine, free))
        .order_by(mine.desc(), TrialOrderRow.created_us, TrialOrderRow.key)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    found = connection.execute(statement).first()
    if found is None:
        return None
    taken = (
        update(TrialOrderRow)
        .where(TrialOrderRow.key == found.key)
        .values(
            state="taken",
            worker=machine.key,
            token=TrialOrderRow.token + 1,
            attempts=TrialOrderRow.attempts + case((mine, 0), else_=1),
            expires_us=now + life_us,
        )
    )
    connection.execute(taken)
    token = connection.execute(select(TrialOrderRow.token).where(TrialOrderRow.key == found.key)).scalar_one()
    return found.body, token


def renew(connection: Connection, key: str, token: int, life_us: int) -> bool:
    """Have a claim end later; False where it was lost."""
    later = lease_rows.now_us(connection) + life_us
    return _change(connection, key, token, {"expires_us": later})


def give_back(connection: Connection, key: str, token: int) -> None:
    """Let another worker have an order at once; the machine was not lost over it."""
    _change(connection, key, token, {"state": "open", "expires_us": 0, "attempts": TrialOrderRow.attempts - 1})


def answer(connection: Connection, key: str, token: int, text: str) -> bool:
    """Keep what an order came to; False where it was taken over or withdrawn meanwhile.

    A claim that has expired and that nobody has taken over still answers: nothing is measured twice for an outage.
    """
    if _change(connection, key, token, {"state": "answered", "answer": text}):
        return True
    statement = select(TrialOrderRow.state).where(TrialOrderRow.key == key, TrialOrderRow.token == token)
    return connection.execute(statement).scalar() == "answered"  # its own, where the transaction is repeated


def settled(connection: Connection, keys: Collection[str]) -> dict[str, str | None]:
    """Give the answers of those orders that have one, and None for those that too many workers were lost over."""
    now = lease_rows.now_us(connection)
    lost = and_(_lapsed(now), TrialOrderRow.attempts >= ATTEMPTS_MAX)
    statement = select(TrialOrderRow.key, TrialOrderRow.answer).where(
        TrialOrderRow.key.in_(sorted(keys)), or_(TrialOrderRow.state == "answered", lost)
    )
    return {row.key: row.answer for row in connection.execute(statement)}


def remove(connection: Connection, study: str) -> list[str]:
    """Remove all orders of a study, and give the answers of those that had one; who answers one later is refused.

    It is one statement: an answer that came between two would be lost.
    """
    statement = delete(TrialOrderRow).where(TrialOrderRow.study == study).returning(TrialOrderRow.answer)
    return [text for text in connection.execute(statement).scalars() if text is not None]


def _lapsed(now: int) -> Any:
    return and_(TrialOrderRow.state == "taken", TrialOrderRow.expires_us <= now)


def _change(connection: Connection, key: str, token: int, values: dict[str, Any]) -> bool:
    """Change an order that is still taken under a token."""
    held = (TrialOrderRow.key == key, TrialOrderRow.token == token, TrialOrderRow.state == "taken")
    return connection.execute(update(TrialOrderRow).where(*held).values(**values)).rowcount == 1
