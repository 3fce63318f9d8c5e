"""Access: who may ask the service, and whether anything changed since it was looked at."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, func, select

from autotune.errors import SpecError
from autotune.registry import token_rows
from autotune.registry.deployment_rows import AUTOMATIC_ACTOR
from autotune.registry.rows import Changes
from autotune.registry.tables import DecisionEventRow, DeploymentRow
from autotune.registry.transactions import Transactions
from autotune.spec import AccessToken


class Access(Transactions):
    """The part of the registry that knows the tokens of the service."""

    def add_token(self, digest: str, token: AccessToken) -> None:
        """Add a token by the SHA-256 of its text.

        Raises:
            SpecError: There is or was one of that name, which stays in what it did; or it is the name of what no
                person decided.
        """
        if token.name == AUTOMATIC_ACTOR:
            raise SpecError(
                f"{token.name!r} stands for what no person decided, so no token has that name; choose another"
            )
        if not self._write(lambda connection: token_rows.insert(connection, digest, token)):
            raise SpecError(f"a token has a name of its own, and {token.name!r} is taken; choose another one")

    def tokens(self) -> list[AccessToken]:
        """Give all tokens, the oldest first, expired and revoked ones included."""
        return list(self.changes().tokens.values())

    def revoke_token(self, name: str, *, at: datetime) -> None:
        """Let a token open nothing from now on; nothing happens to one that is revoked already.

        Raises:
            SpecError: There is none of that name.
        """
        if not self._write(lambda connection: token_rows.revoke(connection, name, at)):
            known = ", ".join(token.name for token in self.tokens()) or "none yet"
            raise SpecError(f"there is no token {name!r}; there are: {known}")

    def changes(self, since: int = 0) -> Changes:
        """Give what happened to decisions, and all tokens.

        Args:
            since: Number of the newest event that is known.
        """
        newest = func.max(DecisionEventRow.id)
        by_type = (
            select(DeploymentRow.type_name, newest)
            .join(DecisionEventRow, DecisionEventRow.group_digest == DeploymentRow.group_digest)
            .where(DecisionEventRow.id > since)
            .group_by(DeploymentRow.type_name)
        )

        def work(connection: Connection) -> Changes:
            number = connection.execute(select(newest)).scalar() or 0
            rows = connection.execute(by_type).all() if number > since else []
            return Changes(
                newest_event=number, changed={row[0]: row[1] for row in rows}, tokens=token_rows.by_digest(connection)
            )

        try:
            return self._read(work)
        except ValueError as error:
            raise self._unreadable(error) from error
