"""Templates for schedulers, as far as they depend on how nights behave."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from autotune.registry.lease_rows import LEASE_S

SCHEDULES = Path(__file__).resolve().parents[3] / "studies" / "schedules"


def test_the_retries_of_kubernetes_outlast_the_lease_of_a_node_that_died():
    job = yaml.safe_load((SCHEDULES / "kubernetes-cronjob.yaml").read_text())["spec"]["jobTemplate"]["spec"]
    waited_s = sum(10 * 2**retry for retry in range(job["backoffLimit"]))  # as its documentation has it
    assert LEASE_S < waited_s < job["activeDeadlineSeconds"]


@pytest.mark.parametrize("line", ['srun --cpus-per-task="$SLURM_CPUS_PER_TASK" .venv/bin/autotune nightly'])
def test_slurm_gives_the_step_the_cpus_of_the_job(line):
    assert line in (SCHEDULES / "nightly.sbatch").read_text()


@pytest.mark.parametrize(("restarts", "submitted"), [(None, True), ("0", True), ("1", False)])
def test_slurm_submits_the_next_night_once_however_often_a_job_is_started(tmp_path, restarts, submitted):
    (tmp_path / "my_project").mkdir()
    for name in ("sbatch", "srun"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> "$HOME/calls"\n')
        program.chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_CPUS_PER_TASK": "8"}
    environment |= {} if restarts is None else {"SLURM_RESTART_COUNT": restarts}
    subprocess.run(["bash", SCHEDULES / "nightly.sbatch"], env=environment, check=True)
    calls = (tmp_path / "calls").read_text()
    assert ("sbatch --begin=" in calls) == submitted
    assert "srun --cpus-per-task=8 .venv/bin/autotune nightly studies/" in calls
