"""The tables: made by migrations, as the code describes them, and packaged with it."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect

from autotune.registry import migrate, open_existing, open_registry
from autotune.registry.opening import HEAD
from autotune.registry.rows import CONFIG_FIELDS
from autotune.registry.tables import VERSION_TABLE, Base, TrialRow
from autotune.spec import LoaderConfig


def test_head_is_what_alembic_says():
    assert migrate.head_version() == HEAD
    assert HEAD in migrate.known_versions()


def test_migrations_from_empty_make_the_tables_that_the_code_describes(tmp_path):
    open_registry(tmp_path).close()
    with create_engine(f"sqlite:///{tmp_path / 'registry.db'}").connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []
        assert set(inspect(connection).get_table_names()) == {*Base.metadata.tables, VERSION_TABLE}


def test_each_field_of_a_configuration_is_a_column():
    assert set(CONFIG_FIELDS) == set(LoaderConfig.model_fields)
    assert set(CONFIG_FIELDS) <= set(TrialRow.__table__.columns.keys())


@pytest.mark.parametrize("opener", ["open_registry", "open_existing"])
def test_opening_an_up_to_date_registry_does_not_load_alembic(tmp_path, opener):
    open_registry(tmp_path).close()
    script = (
        "import sys; from pathlib import Path; from autotune import registry;"
        f"registry.{opener}(Path({str(tmp_path)!r})).close();"
        "assert not any(name.split('.')[0] == 'alembic' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_migrations_lie_inside_the_package():
    folder = Path(migrate.__file__).parent / "migrations"
    assert (folder / "env.py").is_file()
    assert list(folder.glob("versions/*.py"))


def test_opening_again_keeps_what_is_there_and_is_in_wal_mode(tmp_path):
    open_registry(tmp_path).close()
    open_registry(tmp_path).close()
    open_existing(tmp_path).close()
    with create_engine(f"sqlite:///{tmp_path / 'registry.db'}").connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_connections_check_foreign_keys_and_are_synchronous_normal(tmp_path):
    with open_registry(tmp_path) as registry, registry._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
