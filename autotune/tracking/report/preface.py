"""What stands before the studies of a report: what happened, in a few lines and one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Mood = Literal["good", "neutral", "attention", "bad"]
"""How a line is marked: colours of the page, never its only words."""


@dataclass(frozen=True, kw_only=True)
class PrefaceRow:
    """What happened to one study.

    Attributes:
        study: Its name; the row links to its part of the page where there is one.
        verdict: What happened, in a few words.
        mood: How it is marked.
        reason: Why, with the figures.
        rate: Rate or ratio that was measured, as text; empty without one.
        seconds: Wall time that it took; None where nothing ran.
    """

    study: str
    verdict: str
    mood: Mood = "neutral"
    reason: str = ""
    rate: str = ""
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Preface:
    """What stands before the studies.

    Attributes:
        title: Title of the page.
        sentences: What happened, for people.
        rows: One for each study that was looked at.
    """

    title: str
    sentences: Sequence[str] = ()
    rows: Sequence[PrefaceRow] = ()


__all__ = ["Mood", "Preface", "PrefaceRow"]
