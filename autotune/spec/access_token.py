"""`AccessToken`: what is known of a token that opens the service; never the token itself."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from autotune.spec.base import Value

Scope = Literal["read", "tune", "review"]
"""`read` resolves and looks, `tune` queues studies, `review` decides what is deployed."""


class AccessToken(Value):
    """A token as the registry knows it, found by the SHA-256 of its text.

    Attributes:
        name: Who or what uses it.
        scopes: What it may do.
        created_at: Time in UTC.
        expires_at: From then on it opens nothing; None is never.
        revoked_at: When it was revoked; None where it was not.
    """

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def opens(self, scope: Scope, *, at: datetime) -> bool:
        """Say whether the token may do what the scope names at this time."""
        expired = self.expires_at is not None and at >= self.expires_at
        return scope in self.scopes and self.revoked_at is None and not expired
