"""What is known of this machine, as far as loading speed depends on it."""

from __future__ import annotations

import functools
import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import psutil

from autotune.cgroups import Cgroups
from autotune.errors import SpecError
from autotune.spec import MachineFacts

_LIBRARIES = ("torch", "numpy", "rasterio", "pillow", "h5py")

ENVIRONMENT_MARKS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("kaggle", ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_URL_BASE"), ()),
    ("colab", ("COLAB_RELEASE_TAG", "COLAB_GPU", "COLAB_BACKEND_VERSION"), ()),
    ("slurm", ("SLURM_JOB_ID", "SLURM_JOBID"), ()),
    ("kubernetes", ("KUBERNETES_SERVICE_HOST",), ("var/run/secrets/kubernetes.io/serviceaccount",)),
    ("docker", (), (".dockerenv", "run/.containerenv")),
)
"""Name, variables and files; the hosted notebooks come first, since they run in containers too."""


def machine_facts(
    *,
    environ: Mapping[str, str] = os.environ,
    accelerator: bool = True,
    cpu_cap: int | None = None,
    cgroups: Cgroups | None = None,
    root: Path = Path("/"),
) -> MachineFacts:
    """Describe this machine as the loader sees it.

    Args:
        environ: Environment variables.
        accelerator: Ask torch for the accelerator. It is imported then, and where there is an
            accelerator its context is created: the tuner's process passes False and takes the
            facts that the inspection's process found.
        cpu_cap: Most CPUs that the user allows.
        cgroups: Control groups; those of this process if None.
        root: Folder that the marks of containers and `/dev/shm` are looked for in.

    Raises:
        SpecError: `cpu_cap` is below 1.
    """
    cgroups = Cgroups() if cgroups is None else cgroups
    inputs = cpu_inputs(environ=environ, cgroups=cgroups, cpu_cap=cpu_cap)
    name, count, memory_bytes = accelerator_facts() if accelerator else (None, 0, None)
    return MachineFacts(
        host=platform.node() or "unknown",
        system=f"{platform.system()} {platform.machine()}",
        cpu_count=max(1, int(min(inputs.values()))),
        cpu_inputs=inputs,
        memory_bytes=min(psutil.virtual_memory().total, cgroups.memory_limit() or psutil.virtual_memory().total),
        shm_bytes=shm_size(root / "dev/shm"),
        accelerator=name,
        accelerator_count=count,
        accelerator_memory_bytes=memory_bytes,
        environment=recognise_environment(environ=environ, root=root),
        versions=installed_versions(),
        driver=driver_version(root),
    )


def driver_version(root: Path = Path("/")) -> str | None:
    """Give the version of NVIDIA's driver as the kernel tells it; None where it is not loaded."""
    try:
        told = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"\s(\d+(?:\.\d+)+)\s", told)
    return found[1] if found else None


def cpu_inputs(*, environ: Mapping[str, str], cgroups: Cgroups, cpu_cap: int | None = None) -> dict[str, float]:
    """Collect everything that bounds the CPUs which this process may use.

    Raises:
        SpecError: `cpu_cap` is below 1.
    """
    if cpu_cap is not None and cpu_cap < 1:
        raise SpecError(f"cpu_cap must be at least 1, got {cpu_cap}; leave it None to use every CPU")
    inputs: dict[str, float] = {"affinity": _affinity()}
    quota, grant = cgroups.cpu_quota(), _slurm_grant(environ)
    if quota is not None:
        inputs["cgroup_quota"] = quota
    if grant is not None:
        inputs["slurm"] = grant
    if cpu_cap is not None:
        inputs["cap"] = cpu_cap
    return inputs


def recognise_environment(*, environ: Mapping[str, str], root: Path = Path("/")) -> str:
    """Name where this process runs, by the marks that the makers document; `local` without any."""
    for name, variables, files in ENVIRONMENT_MARKS:
        if any(environ.get(variable) for variable in variables) or any((root / file).exists() for file in files):
            return name
    return "local"


def accelerator_facts() -> tuple[str | None, int, int | None]:
    """Give name of the first accelerator, their number, and memory of the first one in bytes.

    CUDA devices are counted first, which torch does through NVML: where there is none, no
    context is created.
    """
    import torch

    count = torch.cuda.device_count()
    if count:
        properties = torch.cuda.get_device_properties(0)
        return str(properties.name), count, int(properties.total_memory)
    if torch.backends.mps.is_available():
        return "Apple MPS", 1, int(torch.mps.recommended_max_memory())
    return None, 0, None


def shm_size(path: Path = Path("/dev/shm")) -> int | None:  # noqa: S108 - the kernel's fixed place, nothing is written
    """Give the size of the shared memory file system in bytes; None where there is none."""
    try:
        stats = os.statvfs(path)
    except OSError:
        return None
    return stats.f_blocks * stats.f_frsize


@functools.cache
def installed_versions() -> dict[str, str]:
    """Give the versions of Python and of the libraries that read and batch samples, without importing them."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _slurm_grant(environ: Mapping[str, str]) -> float | None:
    """Read Slurm's grant: of the task where it is set, else of the node (`8`, or `8(x2)` over several nodes)."""
    for variable in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_JOB_CPUS_PER_NODE"):
        found = re.match(r"\d+", environ.get(variable, ""))
        if found and int(found[0]) > 0:
            return float(found[0])
    return None
