"""Three programs, three databases."""

import pytest

from autotune.errors import SpecError, StorageMixedError
from autotune.registry import check_separate
from autotune.registry.engine import place_of, registry_url


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sqlite:////data/a.db", "sqlite:////data/a.db"),
        ("sqlite:////data/a.db", "sqlite:////data/x/../a.db"),
        ("sqlite:////data/a.db", "sqlite+pysqlite:////data/a.db"),
        ("postgresql://u@localhost/db", "postgresql+psycopg://v:secret@127.0.0.1:5432/db"),
        ("postgresql://u@db.host/db", "postgres://u@db.host/db"),
        (
            "postgresql://u@h/db?options=-csearch_path%3Da",
            "postgresql://u@h/db?options=-c%20search_path%3Da",
        ),
    ],
)
def test_equal_targets_are_refused_whoever_owns_them(one, other):
    for arguments in ((one, other, None), (one, None, other), ("sqlite:////data/r.db", one, other)):
        with pytest.raises(StorageMixedError, match="must not share a database"):
            check_separate(*arguments)


@pytest.mark.parametrize(
    ("registry", "optuna", "mlflow"),
    [
        ("sqlite:////data/a.db", "sqlite:////data/b.db", "sqlite:////data/c.db"),
        ("sqlite:////data/a.db", None, None),
        ("sqlite:////data/a.db", "sqlite://", "sqlite://"),
        ("sqlite:////data/a.db", "sqlite:////data/b.db", "http://127.0.0.1:5000"),
        ("sqlite:////data/a.db", "sqlite:////data/b.db", "/data/a.db"),
        ("postgresql://u@h/db", "postgresql://u@h/db2", "postgresql://u@h2/db"),
        (
            "postgresql://u@h/db?options=-csearch_path%3Da",
            "postgresql://u@h/db?options=-csearch_path%3Db",
            "postgresql://u@h:5433/db",
        ),
    ],
)
def test_different_targets_are_accepted(registry, optuna, mlflow):
    check_separate(registry, optuna, mlflow)


def test_message_shows_no_password():
    with pytest.raises(StorageMixedError) as caught:
        check_separate("postgresql://u:secret@h/db", "postgresql://u:secret@h/db", None)
    assert "secret" not in str(caught.value)


def test_links_to_one_file_are_one_target(tmp_path):
    (tmp_path / "a.db").touch()
    (tmp_path / "b.db").symlink_to(tmp_path / "a.db")
    with pytest.raises(StorageMixedError):
        check_separate(f"sqlite:///{tmp_path / 'a.db'}", f"sqlite:///{tmp_path / 'b.db'}", None)


@pytest.mark.parametrize("address", ["mysql://u@h/db", "sqlite://", "sqlite:///:memory:", "no address", "http://host"])
def test_registry_is_refused_at_other_kinds_of_address(tmp_path, address):
    with pytest.raises(SpecError, match="regist"):
        registry_url(tmp_path, address)


def test_registry_lies_in_the_home_folder_by_default_and_psycopg_drives_postgresql(tmp_path):
    assert place_of(registry_url(tmp_path)) == str(tmp_path / "registry.db")
    url = registry_url(tmp_path, "postgresql://u:secret@h/db")
    assert url.drivername == "postgresql+psycopg"
    assert "secret" not in place_of(url)
