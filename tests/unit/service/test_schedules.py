"""Templates for schedulers, as far as they depend on how nights behave."""

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
