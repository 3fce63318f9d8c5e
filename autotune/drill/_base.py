"""What a drill is: a fault that is caused on purpose, and a look whether what was promised then holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["held", "broken", "not here"]


class PromiseBrokenError(Exception):
    """What was promised of a fault does not hold; the message says what happened instead."""


class NotHereError(Exception):
    """A fault cannot be caused on this machine; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Drill:
    """One fault that is caused on purpose.

    Attributes:
        row: Its row in `autotune.drill.faults.FAULTS`.
        cause: What is done.
        run: Does it in an empty folder of its own and gives what happened. It raises `PromiseBrokenError` where the
            promise does not hold, and `NotHereError` where the fault cannot be caused.
    """

    row: int
    cause: str
    run: Callable[[Path], str]


@dataclass(frozen=True, kw_only=True)
class DrillResult:
    """What became of one drill.

    Attributes:
        row: Its row in `autotune.drill.faults.FAULTS`.
        fault: What went wrong.
        cause: What was done.
        promise: What is promised then.
        state: Whether that held, was broken, or could not be tried here.
        happened: What happened, or why it could not be tried.
        seconds: Wall time.
    """

    row: int
    fault: str
    cause: str
    promise: str
    state: State
    happened: str
    seconds: float


def promised(holds: bool, otherwise: str) -> None:
    """Go on where a promise holds.

    Args:
        holds: Whether it does.
        otherwise: What happened instead.

    Raises:
        PromiseBrokenError: It does not.
    """
    if not holds:
        raise PromiseBrokenError(otherwise)


def refusal(work: Callable[[], object], error: type[Exception], *words: str) -> str:
    """Do what is to be refused, and give the message of the refusal.

    Args:
        work: What is refused.
        error: Class of the refusal.
        *words: What its message has to say.

    Raises:
        PromiseBrokenError: It is not refused, or without these words.
    """
    try:
        work()
    except error as refused:
        message = str(refused)
    else:
        raise PromiseBrokenError(f"it was not refused with {error.__name__}")
    missing = [word for word in words if word not in message]
    promised(not missing, f"the refusal does not say {', '.join(map(repr, missing))}: {message}")
    return message
