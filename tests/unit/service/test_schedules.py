"""Templates for schedulers, as far as they depend on how nights behave."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from autotune.cli import app
from autotune.registry.lease_rows import LEASE_S

SCHEDULES = Path(__file__).resolve().parents[3] / "studies" / "schedules"


@pytest.mark.parametrize("name", ["kubernetes-cronjob.yaml", "kubernetes-workers.yaml"])
def test_the_retries_of_kubernetes_outlast_the_lease_of_a_node_that_died(name):
    spec = yaml.safe_load((SCHEDULES / name).read_text())["spec"]
    job = spec.get("jobTemplate", {"spec": spec})["spec"]
    retries = job.get("backoffLimit") or job["backoffLimitPerIndex"]
    waited_s = sum(10 * 2**retry for retry in range(retries))  # as its documentation has it
    assert LEASE_S < waited_s < job["activeDeadlineSeconds"]


@pytest.mark.parametrize(
    ("name", "commands"), [("nightly.sbatch", ["nightly"]), ("workers.sbatch", ["tune", "worker"])]
)
def test_slurm_gives_the_step_the_cpus_of_the_job(name, commands):
    text = (SCHEDULES / name).read_text()
    for command in commands:
        assert f'srun --cpus-per-task="$SLURM_CPUS_PER_TASK" .venv/bin/autotune {command}' in text


def test_options_of_the_workers_in_the_templates_are_those_of_the_command():
    known = {word for option in get_command(app).commands["worker"].params for word in option.opts}
    for name in ("workers.sbatch", "kubernetes-workers.yaml"):
        line = next(line for line in (SCHEDULES / name).read_text().splitlines() if "autotune worker" in line)
        assert {word for word in line.split() if word.startswith("--") and "=" not in word} <= known


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


@pytest.mark.parametrize(("codes", "left"), [([4, 4, 0], 0), ([4, 3], 3), ([1], 1)])
def test_a_driver_that_slurm_starts_again_elsewhere_waits_for_its_lease_to_end(tmp_path, codes, left):
    (tmp_path / "my_project").mkdir()
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    programs = {
        "srun": 'code=$(head -n 1 "$HOME/codes"); sed -i 1d "$HOME/codes"; exit "$code"',
        "sleep": 'echo "$@" >> "$HOME/slept"',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "0"}
    done = subprocess.run(["bash", SCHEDULES / "workers.sbatch"], env=environment, check=False)
    assert done.returncode == left
    assert (tmp_path / "codes").read_text() == "", "as often as it was to"
    assert (tmp_path / "slept").exists() == (len(codes) > 1)
