"""Tokens that open the service: kept as SHA-256, never as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select, update

from autotune.registry.rows import microseconds, time_of
from autotune.registry.tables import AccessTokenRow
from autotune.registry.writes import insert_into
from autotune.spec import AccessToken


def insert(connection: Connection, digest: str, token: AccessToken) -> bool:
    """Add a token; give whether its name and digest were free, or are this very token's: of a repeated transaction."""
    columns = {
        "digest": digest,
        "name": token.name,
        "scopes": json.dumps(token.scopes),
        "created_us": microseconds(token.created_at),
        "expires_us": None if token.expires_at is None else microseconds(token.expires_at),
        "revoked_us": None if token.revoked_at is None else microseconds(token.revoked_at),
    }
    statement = insert_into(connection, AccessTokenRow).on_conflict_do_nothing().returning(AccessTokenRow.digest)
    return connection.execute(statement, columns).first() is not None or by_digest(connection).get(digest) == token


def by_digest(connection: Connection) -> Mapping[str, AccessToken]:
    """Give all tokens by the SHA-256 of their text, the oldest first."""
    columns = AccessTokenRow.__table__.columns
    rows = connection.execute(select(*columns).order_by(AccessTokenRow.created_us, AccessTokenRow.name))
    return {row.digest: _token(row) for row in rows}


def revoke(connection: Connection, name: str, at: datetime) -> bool:
    """Note that a token opens nothing any more; give whether there is one of that name, revoked before or not."""
    named = AccessTokenRow.name == name
    done = update(AccessTokenRow).where(named, AccessTokenRow.revoked_us.is_(None)).values(revoked_us=microseconds(at))
    connection.execute(done)
    return connection.execute(select(AccessTokenRow.name).where(named)).first() is not None


def _token(row: Row[Any]) -> AccessToken:
    return AccessToken(
        name=row.name,
        scopes=tuple(json.loads(row.scopes)),
        created_at=time_of(row.created_us),
        expires_at=None if row.expires_us is None else time_of(row.expires_us),
        revoked_at=None if row.revoked_us is None else time_of(row.revoked_us),
    )
