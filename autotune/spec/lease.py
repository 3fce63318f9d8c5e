"""`Lease`: the right to work under a name for a while."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from autotune.spec.base import Value


class Lease(Value):
    """The right to work under a name until it expires, by the database's clock.

    Attributes:
        name: What is held, such as a machine.
        holder: Who holds it, for people.
        process: Which process that is, so that its own machine can tell that it is gone; empty is unknown.
        token: Grows with each change of hands; a write under an older token is refused.
        expires_at: Time in UTC.
        purpose: What it is held for.
    """

    name: str = Field(min_length=1, max_length=200)
    holder: str
    process: str = ""
    token: int = Field(ge=1)
    expires_at: datetime
    purpose: str
