"""`mlflow run` starts a study, which logs where MLflow does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotune.registry import open_existing

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
STUDY = """
name: tiny
dataset: {factory: trial_datasets:Plain, arguments: {count: 64}}
budget: 1m
space: {batch_size: [8], num_workers: [0], archive: [files], cache: [none, memory]}
"""


@pytest.mark.slow
@pytest.mark.skipif(not (PROGRAMS / "mlflow").exists(), reason="MLflow's command is not installed")
def test_mlflow_run_starts_a_study_and_finds_its_runs(tmp_path):
    from mlflow.tracking import MlflowClient

    (tmp_path / "tiny.yaml").write_text(STUDY)
    uri, home = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "home"
    environ = {
        **os.environ,
        "PATH": os.pathsep.join([str(PROGRAMS), os.environ.get("PATH", "")]),
        "MLFLOW_TRACKING_URI": uri,
        "AUTOTUNE_HOME": str(home),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
    }
    project = [str(PROGRAMS / "mlflow"), "run", str(ROOT / "mlflow"), "--env-manager", "local"]
    done = subprocess.run(
        [*project, "-P", "study=tiny.yaml", "-P", "budget=10s"],
        cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with open_existing(home) as registry:
        (decision,) = registry.decisions("tiny")
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], filter_string="tags.`autotune.role` = 'study'")
    assert [run.data.tags["autotune.decision_key"] for run in runs] == [decision.key]
