"""Trials with fewer CPUs than there are: by a control group's quota, else by affinity."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from limited_machine import limited_environ
from trial_requests import trial_request

from autotune.cgroups import Cgroups
from autotune.trial import LocalRunner
from autotune.trial.cpu_limit import cpu_group

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
needs_two = pytest.mark.skipif(CPUS < 2, reason="there are no fewer CPUs than one")

LIMITED = """
import os, sys
from autotune.trial.cpu_limit import limit_cpus
limit_cpus(1, sys.argv[1] or None)
print(len(os.sched_getaffinity(0)))
"""


@needs_two
def test_a_trial_with_one_cpu_sees_one_and_takes_no_more_and_the_next_one_has_all(tmp_path):
    busy = trial_request(
        tmp_path, "Plain", {"count": 4096, "work_ms": 1.0}, config={"num_workers": 2}, time_cap_s=0.6, cpus=1
    )
    with LocalRunner() as runner:
        limited, free = runner.run(busy), runner.run(busy.replace(cpus=None))
    assert limited.failure is None
    assert limited.machine.cpu_count == 1
    inputs = limited.machine.cpu_inputs
    assert inputs.get("cgroup_quota") == 1 or inputs["affinity"] == 1
    assert 0 < limited.measurement.busy_cpus < 1.3, "periods of a quota and ticks of the kernel are rough"
    assert free.machine.cpu_count == CPUS


@needs_two
@pytest.mark.parametrize("group", ["", "/sys/fs/cgroup/none-of-this-name"])
def test_without_a_group_that_can_be_joined_affinity_keeps_to_the_cpus(group):
    told = subprocess.run([sys.executable, "-c", LIMITED, group], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "1"


def test_a_group_is_gone_afterwards():
    with cpu_group(1) as folder:
        if folder is None:
            pytest.skip("no control group can be made here")
        assert Cgroups().own_folder("") or folder.is_dir()
    assert not folder.exists()
    with cpu_group(None) as folder:
        assert folder is None


TUNER = """
import sys
from pathlib import Path
from trial_requests import trial_request
from autotune.trial import LocalRunner
with LocalRunner() as runner:
    runner.run(trial_request(Path(sys.argv[1]), "Endless", config={"num_workers": 1}, time_cap_s=60.0, cpus=1))
"""


@needs_two
@pytest.mark.fault
def test_a_group_does_not_outlive_a_tuner_that_was_killed(tmp_path):
    with cpu_group(1) as folder:
        if folder is None:
            pytest.skip("no control group can be made here")
    tuner = subprocess.Popen([sys.executable, "-c", TUNER, str(tmp_path)], env=limited_environ(tmp_path), cwd=tmp_path)
    try:
        group = _awaited(lambda: _group_below(tuner.pid))
    finally:
        os.kill(tuner.pid, signal.SIGKILL)
        tuner.wait()
    _awaited(lambda: not group.exists())


def _group_below(pid):
    """Give the group of a trial below a process, once there is one."""
    for process in psutil.Process(pid).children(recursive=True):
        found = Cgroups(Path(f"/proc/{process.pid}"))
        folder = found.own_folder("cpu") or found.own_folder("")
        if folder is not None and folder.name.startswith("autotune-trial-"):
            return folder
    return None


def _awaited(told, within_s=60):
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        if found := told():
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing came within {within_s} s")
