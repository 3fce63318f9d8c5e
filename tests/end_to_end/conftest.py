"""The command line as real processes, each test's own folder for results and lock."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

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
        run = subprocess.run(
            [sys.executable, "-c", MAIN, *map(str, words)], env=self.environ, cwd=self.folder,
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert run.returncode == code, run.stderr[-2000:]
        return Finished(run.returncode, run.stdout, run.stderr)

    def study(self, text, name="study.yaml"):
        """Write a study file."""
        path = self.folder / name
        path.write_text(text)
        return path


@pytest.fixture(scope="session")
def make_command_line(tmp_path_factory):
    """Make a command line with a folder of its own."""
    return lambda name: CommandLine(tmp_path_factory.mktemp(name))
