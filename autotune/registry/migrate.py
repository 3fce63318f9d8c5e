"""Migrations by Alembic, from inside the program: there is no ini file and no command to run."""

from __future__ import annotations

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from autotune.registry.postgresql import make_schema

_ADVISORY_LOCK = 7_305_803_141
"""Any number that is ours: two processes that start at once must not both create the tables."""


def upgrade(connection: Connection) -> None:
    """Bring the tables to the newest version, within the transaction that the connection is in."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ADVISORY_LOCK})
        make_schema(connection)
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def known_versions() -> frozenset[str]:
    """Give the versions that this program can migrate from."""
    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def head_version() -> str | None:
    """Give the newest version, as Alembic sees it."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("autotune.registry.migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
