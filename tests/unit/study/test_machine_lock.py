"""One tuning job a machine."""

import multiprocessing
import os
import signal

import pytest

from autotune.errors import MachineBusyError
from autotune.study.lock import machine_lock


def hold(path, ready, release):
    with machine_lock("a test", path=path):
        ready.set()
        release.wait(60)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the machine."""
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    path = tmp_path / "machine.lock"
    process = context.Process(target=hold, args=(path, ready, release))
    process.start()
    assert ready.wait(60)
    yield process, path
    release.set()
    process.join(60)


def test_second_holder_is_refused_and_told_who_holds(holder):
    process, path = holder
    with pytest.raises(MachineBusyError, match=f"process {process.pid} \\(a test"), machine_lock("second", path=path):
        pytest.fail("two holders at once")


@pytest.mark.fault
def test_a_killed_holder_frees_the_machine(holder):
    process, path = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    with machine_lock("second", path=path):
        pass
