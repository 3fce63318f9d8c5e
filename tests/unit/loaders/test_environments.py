"""Environments in real folders: what they are recognised by, and how many workers they bear."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_values import Numbers
from torch.utils.data import ConcatDataset, Subset

from autotune.loaders.environments import detect_environment, memory_in_use, slurm_memory, workers_for_memory
from autotune.loaders.mounts import Mount, mount_of, paths_of, read_mounts, remote_mounts
from autotune.units import GIB, MIB

PLENTY = 1024 * GIB
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
LINE = "36 25 0:32 {root} {point} rw,relatime shared:1 - {kind} {source} rw\n"


def quota(root, cpus):
    """Lay out a version 2 control group with a CPU quota under a root."""
    group = root / "cgroup"
    group.mkdir()
    (group / "cpu.max").write_text(f"{int(cpus * 100_000)} 100000\n")
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text("0::/\n")
    (proc / "mountinfo").write_text(LINE.format(root="/", point=group, kind="cgroup2", source="cgroup2"))
    return group


def mark(root, name):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize(
    ("environ", "file", "name", "evidence"),
    [
        ({"COLAB_RELEASE_TAG": "r1"}, None, "colab", "variable COLAB_RELEASE_TAG"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, ".dockerenv", "kaggle", "variable KAGGLE_KERNEL_RUN_TYPE"),
        ({}, ".dockerenv", "docker", "/.dockerenv is there"),
        ({}, "var/run/secrets/kubernetes.io/serviceaccount/token", "kubernetes", "serviceaccount is there"),
        ({"SLURM_JOB_ID": "7"}, None, "slurm", "variable SLURM_JOB_ID"),
        ({}, None, "local", "no mark"),
    ],
)
def test_environment_tells_what_it_was_recognised_by(tmp_path, environ, file, name, evidence):
    if file is not None:
        mark(tmp_path, file)
    found = detect_environment(environ=environ, root=tmp_path, available_bytes=PLENTY)
    assert found.name == name
    assert any(evidence in one for one in found.evidence)
    assert found.lines[0] == f"environment: {name}"


def test_colab_caps_workers_at_the_visible_cores(tmp_path):
    found = detect_environment(environ={"COLAB_GPU": "1"}, root=tmp_path, available_bytes=PLENTY)
    assert found.max_workers == found.cpu_count == CPUS


@pytest.mark.parametrize(("free", "workers"), [(0.5 * GIB, 0), (1.5 * GIB, 1), (3.9 * GIB, 2)])
def test_colab_caps_workers_by_free_memory(tmp_path, free, workers):
    found = detect_environment(environ={"COLAB_GPU": "1"}, root=tmp_path, available_bytes=int(free))
    assert found.max_workers == min(CPUS, workers)
    assert found.memory_free_bytes == int(free)
    if workers < CPUS:
        assert "of memory are left on this machine" in found.reasons[1]


def test_a_machine_of_ones_own_may_have_more_workers_than_cpus(tmp_path):
    found = detect_environment(environ={}, root=tmp_path, available_bytes=PLENTY)
    assert found.max_workers == 2 * CPUS
    assert "reading waits" in found.reasons[0]


def test_slurm_grants_are_the_limits(tmp_path):
    environ = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1", "SLURM_MEM_PER_CPU": "1536"}
    found = detect_environment(environ=environ, root=tmp_path, available_bytes=PLENTY, job_bytes=100 * MIB)
    assert (found.cpu_count, found.max_workers) == (1, 1)
    assert found.memory_free_bytes == 1436 * MIB
    assert "Slurm grants" in found.reasons[0]


def test_what_a_slurm_job_has_in_use_is_not_left(tmp_path):
    environ = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "8", "SLURM_MEM_PER_NODE": "16G"}
    asked = {"environ": environ, "root": tmp_path, "available_bytes": PLENTY}
    assert detect_environment(**asked, job_bytes=int(14.5 * GIB)).max_workers <= 1
    assert detect_environment(**asked, job_bytes=20 * GIB).memory_free_bytes == 0
    own = detect_environment(**asked).memory_free_bytes
    assert own <= 16 * GIB - psutil.Process().memory_info().rss / 2, "this process is part of the job"


def test_memory_of_a_slurm_step_is_that_of_its_tasks(tmp_path):
    daemon = tmp_path / "slurmstepd"
    sleeping = f"{sys.executable} -c 'import time; kept = bytearray({{}} * 2**20); print(flush=True); time.sleep(60)'"
    daemon.write_text(f"#!/bin/sh\n{sleeping.format(40)} &\n{sleeping.format(80)} &\nwait\n")
    daemon.chmod(0o755)
    with subprocess.Popen([daemon], stdout=subprocess.PIPE) as started:
        tasks = []
        try:
            for _ in range(2):
                started.stdout.readline()
            tasks = sorted(psutil.Process(started.pid).children(), key=lambda task: task.memory_info().rss)
            small, large = (task.memory_info().rss for task in tasks)
            assert memory_in_use(tasks[0]) == pytest.approx(small, abs=4 * MIB)
            whole = memory_in_use(tasks[0], whole_step=True)
            assert small + large <= whole <= small + large + 16 * MIB
        finally:
            for task in tasks:
                task.kill()
            started.kill()


@pytest.mark.parametrize(
    ("environ", "size"),
    [
        ({"SLURM_MEM_PER_NODE": "4096"}, 4 * GIB),
        ({"SLURM_MEM_PER_NODE": "16G"}, 16 * GIB),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_ON_NODE": "4"}, 8 * GIB),
        ({"SLURM_MEM_PER_CPU": "2048"}, None),
        ({"SLURM_MEM_PER_NODE": "much"}, None),
    ],
)
def test_memory_of_slurm_is_read_as_slurm_writes_it(environ, size):
    assert slurm_memory(environ) == size


@pytest.mark.parametrize("name", ["docker", "kubernetes"])
def test_containers_are_limited_by_their_control_group(tmp_path, name):
    group = quota(tmp_path, 1.5)
    (group / "memory.max").write_text(str(8 * GIB))
    (group / "memory.current").write_text(str(6 * GIB + GIB // 2))
    mark(tmp_path, ".dockerenv" if name == "docker" else "var/run/secrets/kubernetes.io/serviceaccount/token")
    found = detect_environment(environ={}, root=tmp_path, available_bytes=PLENTY)
    assert (found.name, found.cpu_count, found.max_workers) == (name, 1, 1)
    assert found.memory_free_bytes == GIB + GIB // 2
    assert "control group's quota" in found.reasons[0]


def test_small_shared_memory_of_a_container_is_told(tmp_path):
    mark(tmp_path, ".dockerenv")
    (tmp_path / "dev/shm").mkdir(parents=True)
    found = detect_environment(environ={}, root=tmp_path, available_bytes=PLENTY)
    size = os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    assert any("--shm-size" in reason for reason in found.reasons) == (size < GIB)


@given(st.integers(0, 64 * GIB), st.integers(0, GIB))
def test_more_memory_never_bears_fewer_workers(free, more):
    assert workers_for_memory(free) <= workers_for_memory(free + more)
    assert workers_for_memory(free) <= free // GIB


# Mounts


@pytest.fixture
def mounted(tmp_path):
    """Write a `mountinfo` in which folders of the test are mounts of given kinds."""

    def write(**mounts):
        lines = LINE.format(root="/", point="/", kind="ext4", source="/dev/sda1")
        for name, (kind, source) in mounts.items():
            (tmp_path / name).mkdir(exist_ok=True)
            lines += LINE.format(root="/", point=tmp_path / name, kind=kind, source=source)
        path = tmp_path / "mountinfo"
        path.write_text(lines)
        return path

    return write


class Files(Numbers):
    """Numbers that lie in files."""

    def __init__(self, *paths):
        super().__init__(4)
        self.paths = paths

    def source_paths(self):
        return self.paths


class Rooted(Numbers):
    """Numbers of a folder, as many datasets are told it."""

    def __init__(self, root):
        super().__init__(4)
        self.root = root


@pytest.mark.parametrize(
    ("kind", "source", "told"),
    [
        ("nfs4", "server:/export", "NFS"),
        ("cifs", "//server/share", "a Windows share"),
        ("fuse.drive", "drive", "Google Drive"),
        ("fuse", "drive", "Google Drive"),
        ("fuse.sshfs", "me@there:/data", "another machine over SSH"),
        ("9p", "C:\\134", "a 9p share of the host"),
        ("fuse.gcsfuse", "bucket", "Google Cloud Storage"),
        ("fuse.s3fs", "bucket", "S3"),
        ("lustre", "10.0.0.1@tcp:/scratch", "Lustre"),
        ("fuse.unheardof", "host.name:/folder", "a network mount (host.name:/folder)"),
        ("fuse.unheardof", "s3://bucket", "a network mount (s3://bucket)"),
        ("fuse.mergerfs", "a:b", None),
        ("fuseblk", "/dev/sdb1", None),
        ("ext4", "/dev/sdb1", None),
        ("overlay", "overlay", None),
    ],
)
def test_files_on_a_mount_are_recognised(mounted, tmp_path, kind, source, told):
    mountinfo = mounted(data=(kind, source))
    found = remote_mounts(Files(tmp_path / "data/a.tif", tmp_path / "data/deep/b.tif"), mountinfo=mountinfo)
    assert [mount.remote for mount in found] == ([told] if told else [])
    assert remote_mounts(Files(tmp_path / "elsewhere/a.tif"), mountinfo=mountinfo) == ()


def test_a_local_disk_inside_a_network_mount_is_local(mounted, tmp_path):
    (tmp_path / "data").mkdir()
    mountinfo = mounted(data=("nfs", "server:/"), **{"data/local": ("ext4", "/dev/sdb1")})
    assert remote_mounts(Files(tmp_path / "data/local/a.tif"), mountinfo=mountinfo) == ()
    assert len(remote_mounts(Files(tmp_path / "data/a.tif"), mountinfo=mountinfo)) == 1


def test_the_later_mount_of_a_folder_hides_the_earlier(mounted, tmp_path):
    mountinfo = mounted(data=("nfs", "server:/"))
    with mountinfo.open("a") as file:
        file.write(LINE.format(root="/", point=tmp_path / "data", kind="tmpfs", source="none"))
    assert remote_mounts(Files(tmp_path / "data/a.tif"), mountinfo=mountinfo) == ()


def test_links_are_followed_to_the_mount(mounted, tmp_path):
    mountinfo = mounted(data=("nfs", "server:/"))
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert len(remote_mounts(Files(tmp_path / "link/a.tif"), mountinfo=mountinfo)) == 1


def test_folder_of_a_plain_dataset_is_found_and_what_wraps_it_is_looked_through(mounted, tmp_path):
    mountinfo = mounted(data=("nfs", "server:/"), other=("fuse.drive", "drive"))
    both = ConcatDataset([Subset(Rooted(str(tmp_path / "data")), [0]), Rooted(tmp_path / "other")])
    assert [mount.remote for mount in remote_mounts(both, mountinfo=mountinfo)] == ["NFS", "Google Drive"]
    assert remote_mounts(Numbers(), mountinfo=mountinfo) == ()
    assert list(paths_of(Numbers())) == []


def test_a_system_that_tells_no_mounts_has_none(tmp_path):
    assert read_mounts(tmp_path / "absent") == ()
    assert mount_of(tmp_path, ()) is None
    (tmp_path / "damaged").write_text("nonsense\n1 2 3 - \n - nfs x\n")
    assert read_mounts(tmp_path / "damaged") == ()


def test_mounts_of_this_system_are_read():
    if not Path("/proc/self/mountinfo").exists():
        pytest.skip("no /proc")
    found = mount_of("/proc/self", read_mounts())
    assert (found.point, found.kind) == ("/proc", "proc")


@given(st.text(st.characters(min_codepoint=33, exclude_categories=["Cs"]) | st.sampled_from(" \t\\"), min_size=1))
def test_names_of_folders_survive_the_kernels_escapes(tmp_path_factory, name):
    escaped = b"".join(rb"\%03o" % byte if byte in b" \t\n\\" else bytes([byte]) for byte in f"/{name}".encode())
    path = tmp_path_factory.getbasetemp() / "escaped_mountinfo"
    path.write_bytes(b"1 2 0:3 / " + escaped + b" rw - nfs server:/ rw\n")
    assert read_mounts(path) == (Mount(f"/{name}", "nfs", "server:/"),)
