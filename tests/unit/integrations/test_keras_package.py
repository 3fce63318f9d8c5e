"""Which backend Keras gets: the one that somebody chose, else torch."""

import json
import os
import subprocess
import sys

import pytest

from autotune.integrations.keras_package import chosen_backend

UNCHOSEN = {"floatx": "float32", "epsilon": 1e-07, "backend": "tensorflow", "image_data_format": "channels_last"}
"""As Keras writes it at its first import."""


def settings(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "keras.json").write_text(text if isinstance(text, str) else json.dumps(text), "utf-8")
    return {"KERAS_HOME": str(folder)}


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        (UNCHOSEN, None),
        ({**UNCHOSEN, "backend": "jax"}, "jax"),
        ({**UNCHOSEN, "floatx": "float16"}, "tensorflow"),
        ({"backend": "numpy"}, "numpy"),
        ({"floatx": "float16"}, None),
        ({"backend": ["jax"]}, None),
        ([], None),
        ("{", None),
    ],
)
def test_a_backend_is_chosen_by_settings_that_keras_did_not_write_by_itself(tmp_path, text, backend):
    assert chosen_backend(settings(tmp_path, text)) == backend


def test_settings_lie_in_the_home_folder_where_no_other_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert chosen_backend({}) is None
    settings(tmp_path / ".keras", {"backend": "jax"})
    assert chosen_backend({}) == "jax"
    assert chosen_backend({"KERAS_HOME": "~/elsewhere"}) is None
    settings(tmp_path / "elsewhere", {"backend": "numpy"})
    assert chosen_backend({"KERAS_HOME": "~/elsewhere"}) == "numpy"


ASK = "from autotune.integrations.keras_package import imported_keras; print(imported_keras().config.backend())"


def answer(tmp_path, chosen, **variables):
    """What Keras runs on, or what is missing for it, in a process of its own."""
    environ = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environ |= settings(tmp_path, chosen) | variables
    run = subprocess.run([sys.executable, "-c", ASK], env=environ, capture_output=True, text=True, check=False)
    return (run.stdout.strip() or run.stderr.strip()).splitlines()[-1]


@pytest.mark.slow
def test_keras_runs_on_the_chosen_backend_else_on_torch(tmp_path):
    pytest.importorskip("keras")
    assert answer(tmp_path, UNCHOSEN) == "torch"
    assert answer(tmp_path, {"backend": "jax"}, KERAS_BACKEND="torch") == "torch"
    told = answer(tmp_path, {"backend": "jax"})
    assert told == "jax" or "Keras runs on the backend 'jax', which needs the package 'jax'" in told
