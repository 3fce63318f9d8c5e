"""One tuning job a machine."""

import subprocess
import sys

import pytest

from autotune.errors import MachineBusyError
from autotune.study.lock import machine_lock, machine_shared

HOLD = """
import sys
from pathlib import Path
from autotune.study.lock import machine_lock
with machine_lock("a test", path=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the machine."""
    path = tmp_path / "machine.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process, path
        process.stdin.close()


def test_second_holder_is_refused_and_told_who_holds(holder):
    process, path = holder
    with pytest.raises(MachineBusyError, match=f"process {process.pid} \\(a test"), machine_lock("second", path=path):
        pytest.fail("two holders at once")


def test_who_measures_nothing_shares_the_machine_with_others_like_it_alone(holder, tmp_path):
    _, path = holder
    with pytest.raises(MachineBusyError, match="a test"), machine_shared("building", path=path):
        pytest.fail("shared with a measurement")
    free = tmp_path / "free.lock"
    with machine_shared("one", path=free):
        with machine_shared("two", path=free):
            pass
        with pytest.raises(MachineBusyError), machine_lock("measuring", path=free):
            pytest.fail("measured beside a builder")
    with machine_lock("measuring", path=free):
        pass


@pytest.mark.fault
def test_a_killed_holder_frees_the_machine(holder):
    process, path = holder
    process.kill()
    process.wait(60)
    with machine_lock("second", path=path):
        pass
