"""The command line as real processes, each test's own folder for results and lock."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

MAIN = "from autotune.cli import main; main()"


@dataclass
class Finished:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self):
        """The one JSON document on standard output."""
        return json.loads(self.out)


@dataclass
class CommandLine:
    """Runs `autotune` in child processes that share a home folder.

    A folder for temporary files and a lock of our own keep two
    runs of the tests apart.
    """

    folder: Path

    @property
    def home(self):
        return self.folder / "home"

    @property
    def lock(self):
        return self.folder / "tmp" / "autotune-machine.lock"

    @property
    def environ(self):
        (self.folder / "tmp").mkdir(exist_ok=True)
        ours = {
            "TMPDIR": str(self.folder / "tmp"),
            "AUTOTUNE_HOME": str(self.home),
            "AUTOTUNE_LOCK": str(self.lock),
            "COLUMNS": "200",
        }
        kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        return {**kept, **ours, "NO_COLOR": "1"}

    def __call__(self, *words, code=0):
        return self.python("-c", MAIN, *words, code=code)

    def python(self, *words, code=0, within_s=240):
        """Run Python to its end; where there is none, say where each of its threads is."""
        command = [sys.executable, "-X", "faulthandler", *map(str, words)]
        with subprocess.Popen(
            command, env=self.environ, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                out, err = process.communicate(timeout=within_s)
            except subprocess.TimeoutExpired:
                family = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGABRT)
                out, err = process.communicate()
                pytest.fail(f"no end within {within_s} s, with {family}:\n{out[-1000:]}\n{err[-5000:]}")
        assert process.returncode == code, err[-3000:]
        return Finished(process.returncode, out, err)

    def study(self, text, name="study.yaml"):
        """Write a study file."""
        path = self.folder / name
        path.write_text(text)
        return path


@pytest.fixture(scope="session")
def make_command_line(tmp_path_factory):
    """Make a command line with a folder of its own."""
    return lambda name: CommandLine(tmp_path_factory.mktemp(name))
