"""`QueuedStudy`: a study that somebody asked for, which the next nightly run works off."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from autotune.spec.base import Value
from autotune.spec.record import new_key

QueueState = Literal["queued", "running", "done", "failed", "cancelled"]


class QueuedStudy(Value):
    """A study that somebody asked for.

    Attributes:
        key: Unique key.
        study: Name of the study file in the folder of studies, without its ending.
        requested_by: Name of the token or person.
        requested_at: Time in UTC.
        state: How far it is.
        machine: The machine that runs or ran it; None before.
        started_at: When a machine took it; None before.
        ended_at: When it ended; None before.
        message: What it came to, or why it failed; None before.
    """

    key: str = Field(default_factory=new_key)
    study: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    requested_by: str
    requested_at: datetime
    state: QueueState = "queued"
    machine: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    message: str | None = None
