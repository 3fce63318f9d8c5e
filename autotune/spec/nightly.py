"""`NightlyReport`: what a nightly run did, study by study."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from autotune.spec.base import Value
from autotune.spec.measurement import Interval
from autotune.spec.record import Outcome, new_key

Task = Literal["check", "search"]
"""`check` measures what is deployed against the PyTorch default again; `search` runs the whole study."""

NightOutcome = Literal["kept", "promoted", "waiting", "rolled_back", "nothing_feasible", "failed", "out_of_budget"]
"""What became of a study in a night; `kept` is a deployment that still holds, or is still the best."""


class StudyNight(Value):
    """One study in one night.

    Attributes:
        study: Name of the study.
        file: Its study file.
        task: What was to be done when the night began.
        why: The reason for the task.
        outcome: What became of it.
        told: What happened, one sentence each, with the figures.
        searched: Whether a search was run; a check that finds drift leads to one.
        recorded: Ratio to the default that the deployed decision claims; None without.
        measured: The same ratio, measured this night; None where it was not.
        recorded_samples_per_s: Rate of the deployed configuration by its decision.
        measured_samples_per_s: The same, measured this night.
        before_key: Decision that was deployed before; None where none was.
        after_key: Decision that is deployed now.
        new_key: Decision that the search came to; None without one.
        result: What the search came to.
        wall_s: Wall time that it took.
    """

    study: str
    file: str
    task: Task
    why: str
    outcome: NightOutcome
    told: tuple[str, ...] = ()
    searched: bool = False
    recorded: Interval | None = None
    measured: Interval | None = None
    recorded_samples_per_s: float | None = None
    measured_samples_per_s: float | None = None
    before_key: str | None = None
    after_key: str | None = None
    new_key: str | None = None
    result: Outcome | None = None
    wall_s: float = Field(default=0.0, ge=0)


class Pruned(Value):
    """What was removed as too old.

    Attributes:
        trials: Trial records.
        archives: Archives, as `<fingerprint>/<format>-<form>`.
        freed_bytes: Bytes that the archives took.
        searches: Optuna studies that others have superseded.
        reports: Reports of nights.
    """

    trials: int = Field(default=0, ge=0)
    archives: tuple[str, ...] = ()
    freed_bytes: int = Field(default=0, ge=0)
    searches: int = Field(default=0, ge=0)
    reports: int = Field(default=0, ge=0)


class NightlyReport(Value):
    """What a nightly run did.

    Attributes:
        key: Unique key.
        machine: The machine, as its lease names it.
        started_at: Time in UTC.
        ended_at: Time in UTC; None while it runs, and where it was killed.
        budget_s: Wall time that it was given.
        spent_s: Wall time that it took, interrupted runs of the same night included.
        studies: What became of each study, in the order of work.
        rebuilt: Deployed archives that were built: they were not there, or their sources had changed.
        pruned: What was removed as too old.
        exit_code: 0 fine, 1 something failed, 3 a study has nothing feasible; None while it runs.
    """

    key: str = Field(default_factory=new_key)
    machine: str
    started_at: datetime
    ended_at: datetime | None = None
    budget_s: float = Field(gt=0)
    spent_s: float = Field(default=0.0, ge=0)
    studies: tuple[StudyNight, ...] = ()
    rebuilt: tuple[str, ...] = ()
    pruned: Pruned = Pruned()
    exit_code: int | None = None
