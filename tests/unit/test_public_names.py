"""The public list is a promise, and importing it costs next to nothing."""

import json
import subprocess
import sys

import pytest

import autotune

PUBLIC = {
    "LoaderConfig",
    "StudySpec",
    "StudySummary",
    "apply",
    "best_config",
    "best_loader",
    "explain",
    "online_loader",
    "tune",
}


def test_public_names_are_pinned():
    assert set(autotune.__all__) == PUBLIC
    assert set(dir(autotune)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_loads_and_is_documented(name):
    assert getattr(autotune, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = autotune.nothing


def test_importing_autotune_loads_neither_torch_nor_optuna_nor_mlflow():
    code = "import autotune, json, sys; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(run.stdout)}
    assert not loaded & {"torch", "optuna", "mlflow", "numpy", "pydantic", "sqlalchemy", "rasterio", "scipy"}


def test_composing_a_study_needs_no_torch():
    code = "import autotune.compose, autotune.study.run, autotune.cli, sys; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
