"""Templates for schedulers, as far as they depend on how nights behave."""

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
