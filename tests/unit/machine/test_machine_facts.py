"""Facts of this machine and of machines whose marks are laid out."""

import platform
import subprocess
import sys

import psutil
import pytest

from autotune.cgroups import Cgroups
from autotune.errors import SpecError
from autotune.machine import driver_version, machine_facts, recognise_environment, shm_size


def test_memory_is_the_smaller_of_ram_and_group_limit(tmp_path):
    mount = tmp_path / "cgroup"
    mount.mkdir()
    (tmp_path / "cgroup_file").write_text("")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text("0::/\n")
    (proc / "mountinfo").write_text(f"1 2 0:1 / {mount} rw - cgroup2 cgroup2 rw\n")
    (mount / "memory.max").write_text(str(64 * 1024**2))
    assert machine_facts(environ={}, accelerator=False, cgroups=Cgroups(proc)).memory_bytes == 64 * 1024**2
    (mount / "memory.max").write_text(str(1 << 59))
    facts = machine_facts(environ={}, accelerator=False, cgroups=Cgroups(proc))
    assert facts.memory_bytes == psutil.virtual_memory().total


def test_the_users_cap_bounds_the_cpus():
    facts = machine_facts(environ={}, accelerator=False, cpu_cap=1)
    assert facts.cpu_count == 1
    assert facts.cpu_inputs["cap"] == 1


def test_a_cap_below_one_is_refused():
    with pytest.raises(SpecError, match="cpu_cap must be at least 1, got 0"):
        machine_facts(environ={}, accelerator=False, cpu_cap=0)


def test_versions_and_system_are_told():
    facts = machine_facts(environ={}, accelerator=False)
    assert facts.versions["python"] == platform.python_version()
    assert {"torch", "numpy"} <= set(facts.versions)
    assert facts.system.startswith(platform.system())


def test_facts_without_accelerator_leave_torch_unimported():
    code = "import sys, autotune.machine as m; m.machine_facts(accelerator=False); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_accelerator_facts_agree_with_torch():
    import torch

    facts = machine_facts(environ={})
    assert facts.accelerator_count == torch.cuda.device_count() or facts.accelerator == "Apple MPS"
    assert facts.has_accelerator == bool(facts.accelerator_count)


@pytest.mark.parametrize(
    ("environ", "file", "name"),
    [
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch", "COLAB_GPU": "0"}, ".dockerenv", "kaggle"),
        ({"COLAB_RELEASE_TAG": "release-1"}, ".dockerenv", "colab"),
        ({"SLURM_JOB_ID": "7"}, "empty", "slurm"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ".dockerenv", "kubernetes"),
        ({}, "var/run/secrets/kubernetes.io/serviceaccount/token", "kubernetes"),
        ({}, ".dockerenv", "docker"),
        ({}, "run/.containerenv", "docker"),
        ({}, "empty", "local"),
    ],
)
def test_environments_are_recognised_by_their_marks(tmp_path, environ, file, name):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    assert recognise_environment(environ=environ, root=tmp_path) == name


def test_shared_memory_is_unknown_where_there_is_none(tmp_path):
    assert shm_size(tmp_path / "missing") is None
    assert shm_size(tmp_path) > 0


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56\nGCC 12.3.0\n", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build\n", "560.35.03"),
        ("something else\n", None),
    ],
)  # fmt: skip
def test_the_version_of_the_driver_is_what_the_kernel_tells(tmp_path, told, version):
    folder = tmp_path / "proc/driver/nvidia"
    folder.mkdir(parents=True)
    (folder / "version").write_text(told)
    assert driver_version(tmp_path) == version
    assert driver_version(tmp_path / "absent") is None
