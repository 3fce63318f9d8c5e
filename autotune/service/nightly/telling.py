"""Who is told how a night goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from autotune.spec import StudyListener, StudyNight, TrialRecord


class NightListener(Protocol):
    """Is told how a night goes."""

    def on_study(self, name: str, what: str) -> None:
        """Something is begun for a study."""

    def on_run(self, record: TrialRecord) -> None:
        """A run of a check has ended."""

    def on_done(self, night: StudyNight) -> None:
        """All is done for a study."""

    def searching(self) -> Sequence[StudyListener]:
        """Give listeners for the search of one study."""
