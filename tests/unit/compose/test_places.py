"""Where results are kept, and what is refused before anything is written."""

import pytest

from autotune.compose import Places, places, tune_study
from autotune.errors import StorageMixedError
from autotune.spec.study_file import spec_from_fields

SPEC = spec_from_fields({"name": "s", "dataset": "my:make", "budget": "5s"})


def test_a_named_home_wins_over_the_environment_and_is_made(tmp_path):
    at = places(tmp_path / "named", environ={"AUTOTUNE_HOME": str(tmp_path / "other")})
    assert at.home == tmp_path / "named"
    assert at.home.is_dir()
    assert not (tmp_path / "other").exists()


def test_everything_lies_in_the_home_folder_where_nothing_else_is_said(tmp_path):
    at = places(environ={"AUTOTUNE_HOME": str(tmp_path)})
    assert at.registry_url is None
    assert at.optuna_url == f"sqlite:///{tmp_path}/optuna.db"
    assert at.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert {at.archive_root.parent, at.cache_root.parent} == {tmp_path}


def test_the_environment_names_a_tracking_server_and_a_registry(tmp_path):
    environ = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000", "AUTOTUNE_STORAGE": f"sqlite:///{tmp_path}/far.db"}
    at = places(tmp_path, environ=environ)
    assert at.tracking_uri == environ["MLFLOW_TRACKING_URI"]
    assert at.registry_url == environ["AUTOTUNE_STORAGE"]


@pytest.mark.parametrize("shared", ["optuna.db", "registry.db"])
def test_two_programs_in_one_database_are_refused_before_anything_is_written(tmp_path, shared):
    at = Places(home=tmp_path, tracking_uri=f"sqlite:///{tmp_path / shared}", lock=tmp_path / "lock")
    with pytest.raises(StorageMixedError):
        tune_study(SPEC, at=at)
    assert list(tmp_path.iterdir()) == []
