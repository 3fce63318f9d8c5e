"""The tables: made by migrations, as the code describes them, and packaged with it."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from registry_values import decision
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


def _migrated_to(home, version):
    """Bring a SQLite registry to a version, as an older program would have left it."""
    config = migrate._config()
    with create_engine(f"sqlite:///{home / 'registry.db'}").begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, version)


def test_what_was_served_stays_served_when_an_older_registry_is_migrated_and_when_it_goes_back(tmp_path):
    old, new, other = decision(minute=1), decision(minute=2), decision(study="t", minute=3)
    with open_registry(tmp_path) as registry:
        for one in (old, new, other):
            registry.save_decision(one)
        before = registry.candidates("pack.Data")
    _migrated_to(tmp_path, "0002")
    with create_engine(f"sqlite:///{tmp_path / 'registry.db'}").connect() as connection:
        served = connection.exec_driver_sql("SELECT decision_key FROM newest_decisions").scalars().all()
        assert sorted(served) == sorted([new.key, other.key])
        assert "deployments" not in inspect(connection).get_table_names()
    with open_registry(tmp_path) as registry:
        assert registry.candidates("pack.Data") == before
        (deployment,) = registry.deployments("s")
        assert (deployment.decision, deployment.pinned, deployment.version) == (new, False, 1)
        events = registry.events("s")
        assert [(event.action, event.decision_key, event.after_key) for event in events] == [
            ("deployed", new.key, new.key)
        ]
        registry.roll_back(new.key, to=old.key, actor="ada", reason="slower", expected_version=1)
        assert registry.deployed_decisions("s") == [old]


def test_connections_check_foreign_keys_and_are_synchronous_normal(tmp_path):
    with open_registry(tmp_path) as registry, registry._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
