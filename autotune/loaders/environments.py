"""Where training runs (Colab, Kaggle, Docker, Kubernetes, Slurm or a machine of one's own), and what limits follow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
from pydantic import Field

from autotune.cgroups import Cgroups
from autotune.machine import ENVIRONMENT_MARKS, cpu_inputs, recognise_environment, shm_size
from autotune.spec import Value
from autotune.units import GIB, KIB, MIB, format_bytes

WORKER_BYTES = GIB
"""Memory that one worker may come to: interpreter, libraries, and the batches that it keeps ready."""
SCARCE_BYTES = 4 * GIB
"""Free memory under which there are at most `SCARCE_WORKERS` workers (seed 0's rule of thumb)."""
SCARCE_WORKERS = 2
SMALL_SHM_BYTES = GIB
"""Shared memory under which batches of workers may not fit; Docker gives 64 MiB where nothing else is said."""
LOCAL_WORKERS_PER_CPU = 2
"""On a machine of one's own more workers than CPUs help where reading waits."""

_SOURCES: Mapping[str, str] = {
    "affinity": "CPUs that this process may run on",
    "cgroup_quota": "CPUs that the control group's quota grants",
    "slurm": "CPUs that Slurm grants the task",
}
_SLURM_UNITS: Mapping[str, int] = {"": MIB, "K": KIB, "M": MIB, "G": GIB, "T": 1024 * GIB}
"""Slurm counts in MiB where nothing else is said."""
_SLURM_DAEMON = "slurmstepd"
"""Process on the node that starts the tasks of a job's step."""
_CONTAINERS = ("docker", "kubernetes")


class Environment(Value):
    """Where training runs, how that was recognised, and what it limits.

    Attributes:
        name: `colab`, `kaggle`, `docker`, `kubernetes`, `slurm` or `local`.
        evidence: What it was recognised by, one sentence each.
        cpu_count: CPUs that may be used, rounded down, at least 1.
        memory_free_bytes: Memory that is left, within the limits of control groups and Slurm.
        max_workers: Most loader workers that are tried or served here.
        reasons: Where the limits come from, one sentence each.
    """

    name: str
    evidence: tuple[str, ...]
    cpu_count: int = Field(ge=1)
    memory_free_bytes: int = Field(ge=0)
    max_workers: int = Field(ge=0)
    reasons: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The environment in words, line by line."""
        return (
            f"environment: {self.name}",
            *(f"recognised by: {one}" for one in self.evidence),
            *(f"limit: {one}" for one in self.reasons),
        )


def detect_environment(
    *,
    environ: Mapping[str, str] = os.environ,
    root: Path = Path("/"),
    cgroups: Cgroups | None = None,
    available_bytes: int | None = None,
    job_bytes: int | None = None,
) -> Environment:
    """Recognise where training runs, and derive how many workers it bears.

    Args:
        environ: Environment variables.
        root: Folder that the marks of containers, `/proc` and `/dev/shm` are looked for in.
        cgroups: Control groups; None reads those of this process under `root`.
        available_bytes: Memory that the machine has left; None asks the system.
        job_bytes: Memory that the Slurm job has in use; None asks the system.
    """
    cgroups = Cgroups(root / "proc/self") if cgroups is None else cgroups
    name = recognise_environment(environ=environ, root=root)
    cpus = cpu_inputs(environ=environ, cgroups=cgroups)
    cpu_count = max(1, int(min(cpus.values())))
    free, source = _memory_free({
        "on this machine": psutil.virtual_memory().available if available_bytes is None else available_bytes,
        "in the control group": cgroups.memory_free(),
        "of what Slurm grants": _slurm_free(environ, job_bytes),
    })  # fmt: skip
    by_cpus = cpu_count * (LOCAL_WORKERS_PER_CPU if name == "local" else 1)
    by_memory = workers_for_memory(free)
    tightest = min(cpus, key=lambda one: cpus[one])
    told = f"at most {by_cpus} workers: {cpus[tightest]:g} {_SOURCES.get(tightest, tightest)}"
    reasons = [told + (", and as many again where reading waits" if name == "local" else "")]
    if by_memory < by_cpus:
        reasons.append(f"at most {by_memory} workers: {format_bytes(free)} of memory are left {source}")
    return Environment(
        name=name,
        evidence=tuple(_evidence(name, environ, root)) or ("no mark of a notebook service, container or scheduler",),
        cpu_count=cpu_count,
        memory_free_bytes=free,
        max_workers=min(by_cpus, by_memory),
        reasons=(*reasons, *_shared_memory(name, root)),
    )


def workers_for_memory(free_bytes: int) -> int:
    """Give how many workers the free memory bears: one for each GiB, and at most two under 4 GiB."""
    bearable = free_bytes // WORKER_BYTES
    return min(SCARCE_WORKERS, bearable) if free_bytes < SCARCE_BYTES else bearable


def _evidence(name: str, environ: Mapping[str, str], root: Path) -> Iterator[str]:
    for known, variables, files in ENVIRONMENT_MARKS:
        if known == name:
            yield from (f"the variable {variable} is set" for variable in variables if environ.get(variable))
            yield from (f"/{file} is there" for file in files if (root / file).exists())


def _memory_free(free: Mapping[str, int | None]) -> tuple[int, str]:
    known = {source: room for source, room in free.items() if room is not None}
    source = min(known, key=lambda one: known[one])
    return known[source], source


def slurm_memory(environ: Mapping[str, str]) -> int | None:
    """Give the memory that Slurm grants: of the node, else for each CPU of the task; None where it grants all."""
    node = _slurm_bytes(environ.get("SLURM_MEM_PER_NODE", ""))
    if node:
        return node
    each = _slurm_bytes(environ.get("SLURM_MEM_PER_CPU", ""))
    for variable in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        cpus = environ.get(variable, "")
        if each and cpus.isdecimal() and int(cpus):
            return each * int(cpus)
    return None


def _slurm_free(environ: Mapping[str, str], job_bytes: int | None) -> int | None:
    """Give what is left of Slurm's grant; a grant for the node is shared by all tasks of the job that run on it."""
    granted = slurm_memory(environ)
    if granted is None:
        return None
    if job_bytes is None:
        job_bytes = memory_in_use(whole_step=bool(_slurm_bytes(environ.get("SLURM_MEM_PER_NODE", ""))))
    return max(0, granted - job_bytes)


def memory_in_use(process: psutil.Process | None = None, *, whole_step: bool = False) -> int:
    """Give the memory of a Slurm task: of a process, those above it up to Slurm's daemon, and all that they started.

    Pages that processes share are counted for each, so it is no less than what is in use.

    Args:
        process: A process of the task; None is this one.
        whole_step: Whether the other tasks of the step on this node count, too.
    """
    task = psutil.Process() if process is None else process
    above = task.parents()
    daemon = next((place for place, parent in enumerate(above) if _name_of(parent) == _SLURM_DAEMON), None)
    if daemon is not None:
        task = above[daemon] if whole_step else (task, *above)[daemon]
    return sum(map(_resident_bytes, (task, *task.children(recursive=True))))


def _name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:  # it has ended since
        return ""


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _slurm_bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KMGT]?)B?", text.strip().upper())
    return int(found[1]) * _SLURM_UNITS[found[2]] if found else 0


def _shared_memory(name: str, root: Path) -> tuple[str, ...]:
    size = shm_size(root / "dev/shm") if name in _CONTAINERS else None
    if size is None or size >= SMALL_SHM_BYTES:
        return ()
    way_out = "docker run --shm-size=2g" if name == "docker" else "an emptyDir volume with medium: Memory at /dev/shm"
    return (f"batches of workers pass through /dev/shm, which has {format_bytes(size)}; {way_out} gives more",)
