"""Commands that are stopped by Ctrl-C say what is kept, where something is."""

import signal
import subprocess
import sys
import time

import pytest

from autotune.errors import AutotuneError
from autotune.registry import open_existing

STUDY = """\
name: stopped
dataset:
  factory: autotune.data.datasets.factories:forest_gaps
  arguments: {root: tiles, count: 40, size: 64}
budget: {time: 120s, trials: 50}
time_cap_s: 0.5
confirm_time_cap_s: 0.5
"""
# a job in the background of a shell without job control inherits that Ctrl-C is ignored; a terminal's does not
MAIN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from autotune.cli import main; main()"
GOES_ON = "stopped; finished trials are kept, the same command goes on from here"


@pytest.fixture
def command_line(make_command_line):
    return make_command_line("stopped")


def measured(command_line):
    try:
        with open_existing(command_line.home) as registry:
            return len(registry.records("stopped"))
    except AutotuneError:  # it is not there yet
        return 0


def stopped(command_line, *words):
    """Start a command, press Ctrl-C after its first run, and give its exit code and what it told."""
    path = command_line.study(STUDY)
    command = [sys.executable, "-c", MAIN, words[0], str(path), *words[1:]]
    with subprocess.Popen(
        command, env=command_line.environ, cwd=command_line.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        deadline_s = time.monotonic() + 120
        while not measured(command_line):
            assert process.poll() is None, process.communicate()[1][-3000:]
            assert time.monotonic() < deadline_s, "nothing was measured"
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return process.returncode, out, err


@pytest.mark.slow
def test_a_study_that_is_stopped_says_that_it_goes_on(command_line):
    code, out, err = stopped(command_line, "tune", "--json")
    assert (code, out) == (130, "")
    assert GOES_ON in err
    assert err.count("goes on") == 1


@pytest.mark.slow
def test_a_comparison_that_is_stopped_promises_nothing(command_line):
    code, out, err = stopped(command_line, "compare-configs", "--blocks", "50", "--json")
    assert (code, out) == (130, "")
    assert "goes on" not in err
