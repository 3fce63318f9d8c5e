"""Control groups of both versions, laid out as real trees in temporary folders."""

import pytest

from autotune.cgroups import Cgroups, count_oom_kills
from autotune.machine import cpu_inputs, machine_facts

MOUNTINFO = "30 20 0:26 {root} {mount} rw,nosuid shared:4 - {kind} {kind} {options}\n"


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def v2(tmp_path, group="/user/job", root="/"):
    """Lay out a version 2 process with its groups."""
    mount = tmp_path / "cgroup"
    mount.mkdir()
    write(
        tmp_path / "proc",
        cgroup=f"0::{group}\n",
        mountinfo=MOUNTINFO.format(root=root, mount=mount, kind="cgroup2", options="rw"),
    )
    return mount, Cgroups(tmp_path / "proc")


def v1(tmp_path, group="/docker/abc", root="/"):
    """Lay out a version 1 process with its groups."""
    lines = ""
    for controller in ("cpu,cpuacct", "memory"):
        mount = tmp_path / controller.replace(",", "+")
        mount.mkdir()
        lines += MOUNTINFO.format(root=root, mount=mount, kind="cgroup", options=f"rw,{controller}")
    write(tmp_path / "proc", cgroup=f"4:memory:{group}\n3:cpu,cpuacct:{group}\n", mountinfo=lines)
    return tmp_path / "cpu+cpuacct", tmp_path / "memory", Cgroups(tmp_path / "proc")


def test_v2_quota_is_the_smallest_over_all_ancestors(tmp_path):
    mount, cgroups = v2(tmp_path)
    write(mount / "user/job", cpu__max="max 100000\n")
    write(mount / "user", cpu__max="150000 100000\n")
    assert cgroups.cpu_quota() == 1.5


def test_v2_memory_limit_is_the_smallest_and_droppable_cache_is_free(tmp_path):
    mount, cgroups = v2(tmp_path)
    write(
        mount / "user/job", memory__max="8000\n", memory__current="5000\n", memory__stat="anon 1\ninactive_file 3000\n"
    )
    write(mount / "user", memory__max="max\n", memory__current="9000\n")
    assert cgroups.memory_limit() == 8000
    assert cgroups.memory_free() == 8000 - (5000 - 3000)


def test_v2_throttling_and_kills_are_read(tmp_path):
    mount, cgroups = v2(tmp_path)
    write(mount / "user/job", cpu__stat="usage_usec 5\nthrottled_usec 2500000\n", memory__events="low 0\noom_kill 3\n")
    assert cgroups.throttled_s() == 2.5
    assert cgroups.oom_kills() == 3


def test_v1_quota_limit_throttling_and_kills_are_read(tmp_path):
    cpu, memory, cgroups = v1(tmp_path)
    write(
        cpu / "docker/abc",
        cpu__cfs_quota_us="250000\n",
        cpu__cfs_period_us="100000\n",
        cpu__stat="throttled_time 500000000\n",
    )
    write(
        memory / "docker/abc",
        memory__limit_in_bytes="4096\n",
        memory__usage_in_bytes="1000\n",
        memory__oom_control="under_oom 0\noom_kill 2\n",
    )
    assert (cgroups.cpu_quota(), cgroups.memory_limit(), cgroups.memory_free()) == (2.5, 4096, 3096)
    assert (cgroups.throttled_s(), cgroups.oom_kills()) == (0.5, 2)


def test_v1_without_limits_gives_none(tmp_path):
    cpu, memory, cgroups = v1(tmp_path)
    write(cpu / "docker/abc", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    write(memory / "docker/abc", memory__limit_in_bytes="9223372036854771712\n")
    assert cgroups.cpu_quota() is None
    assert cgroups.memory_limit() is None


def test_groups_inside_a_container_are_found_below_the_mounted_root(tmp_path):
    mount, cgroups = v2(tmp_path, group="/docker/abc/inner", root="/docker/abc")
    write(mount / "inner", cpu__max="50000 100000\n")
    assert cgroups.cpu_quota() == 0.5


def test_a_group_outside_of_the_mount_falls_back_to_the_mount(tmp_path):
    mount, cgroups = v2(tmp_path, group="/../../other")
    write(mount, cpu__max="300000 100000\n")
    assert cgroups.cpu_quota() == 3.0


def test_nothing_is_known_without_control_groups(tmp_path):
    cgroups = Cgroups(tmp_path / "missing")
    assert (cgroups.cpu_quota(), cgroups.memory_limit(), cgroups.memory_free()) == (None, None, None)
    assert (cgroups.throttled_s(), cgroups.oom_kills()) == (None, None)
    assert count_oom_kills(cgroups, vmstat=tmp_path / "vmstat") == 0


def test_kills_of_the_whole_machine_count_where_the_group_tells_none(tmp_path):
    (tmp_path / "vmstat").write_text("pgfault 7\noom_kill 4\n")
    assert count_oom_kills(Cgroups(tmp_path / "missing"), vmstat=tmp_path / "vmstat") == 4


def test_a_quota_of_one_and_a_half_cpus_counts_as_one(tmp_path):
    mount, cgroups = v2(tmp_path)
    write(mount / "user", cpu__max="150000 100000\n")
    facts = machine_facts(environ={}, accelerator=False, cgroups=cgroups)
    assert facts.cpu_count == 1
    assert facts.cpu_inputs["cgroup_quota"] == 1.5


@pytest.mark.parametrize(
    ("environ", "grant"),
    [
        ({"SLURM_CPUS_PER_TASK": "3", "SLURM_CPUS_ON_NODE": "64"}, 3),
        ({"SLURM_CPUS_ON_NODE": "64"}, 64),
        ({"SLURM_JOB_CPUS_PER_NODE": "16(x2)"}, 16),
        ({"SLURM_CPUS_PER_TASK": ""}, None),
    ],
)
def test_slurms_grant_is_read(tmp_path, environ, grant):
    inputs = cpu_inputs(environ=environ, cgroups=Cgroups(tmp_path))
    assert inputs.get("slurm") == grant
