"""CPU time of this process and of others."""

import os
import subprocess
import sys
import time

import pytest

from autotune.cgroups import Cgroups
from autotune.measure.contention import (
    ContentionMeter,
    busy_ticks,
    process_cpu_ticks,
    process_tree,
    tree_cpu_ticks,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
BURN = "import time; e = time.process_time() + 0.3\nwhile time.process_time() < e: pass"


def stat(folder, pid, *times, children=""):
    utime, stime, cutime, cstime = (*times, 0, 0, 0)[:4]
    (folder / str(pid) / "task" / str(pid)).mkdir(parents=True)
    (folder / str(pid) / "stat").write_text(f"{pid} (a (b) c) S {' 0' * 10} {utime} {stime} {cutime} {cstime} 0 0")
    (folder / str(pid) / "task" / str(pid) / "children").write_text(children)


def test_a_tree_holds_children_and_grandchildren(tmp_path):
    stat(tmp_path, 1, 5, 5, children="2 3")
    stat(tmp_path, 2, 10, children="4")
    stat(tmp_path, 3, 20, 1, 2, 3)
    stat(tmp_path, 4, 40)
    assert sorted(process_tree(1, tmp_path)) == [1, 2, 3, 4]
    assert tree_cpu_ticks(1, tmp_path) == 10 + 10 + 26 + 40
    assert process_cpu_ticks(3, tmp_path) == 21


def test_others_are_all_busy_ticks_less_ours_and_the_tuners(tmp_path):
    stat(tmp_path, 1, 0)
    stat(tmp_path, 9, 0)
    (tmp_path / "stat").write_text("cpu 100 0 0 1000 50 0 0 0 0 0\n")
    meter = ContentionMeter(1, also=(9,), cgroups=Cgroups(tmp_path / "none"), proc=tmp_path)
    (tmp_path / "stat").write_text("cpu 200 10 10 9000 90 10 10 10 500 0\n")
    (tmp_path / "1" / "stat").write_text("1 (x) S " + "0 " * 10 + "60 0 0 0 0")
    (tmp_path / "9" / "stat").write_text("9 (x) S " + "0 " * 10 + "20 0 70 0 0")
    assert meter._ticks()[0] - meter._others == 150 - 60 - 20
    assert meter.share() > 0
    assert meter.own_cpu_s == pytest.approx(60 / os.sysconf("SC_CLK_TCK"))


def test_throttling_counts_as_taken_unless_the_quota_is_what_is_looked_into(tmp_path):
    mount = tmp_path / "cgroup"
    mount.mkdir()
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "cgroup").write_text("0::/\n")
    (tmp_path / "1" / "mountinfo").write_text(f"1 2 0:1 / {mount} rw - cgroup2 cgroup2 rw\n")
    (mount / "cpu.stat").write_text("throttled_usec 0\n")
    (tmp_path / "stat").write_text("cpu 1 0 0 0 0 0 0 0\n")
    meter = ContentionMeter(1, cgroups=Cgroups(tmp_path / "1"), proc=tmp_path)
    looking_into_it = ContentionMeter(1, cgroups=Cgroups(tmp_path / "1"), count_throttling=False, proc=tmp_path)
    (mount / "cpu.stat").write_text("throttled_usec 60000000\n")
    assert meter.share() > 0.15
    assert looking_into_it.share() == 0, "a quota that is the question is no disturbance"


def test_nothing_is_known_without_proc(tmp_path):
    assert busy_ticks(tmp_path) is None
    assert ContentionMeter(1, cgroups=Cgroups(tmp_path), proc=tmp_path).share() is None


def test_work_of_our_own_children_counts_as_ours():
    before = tree_cpu_ticks(os.getpid())
    subprocess.run([sys.executable, "-c", BURN], check=True)
    ticks = 0.25 * os.sysconf("SC_CLK_TCK")
    assert tree_cpu_ticks(os.getpid()) - before >= ticks


def test_work_of_another_process_is_noticed():
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        meter = ContentionMeter(2**22 + 1)  # a tree that is not there: all of this machine's work is others'
        time.sleep(0.5)
        assert meter.share() > 0.15
    finally:
        other.kill()
        other.wait()
