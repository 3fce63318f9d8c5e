"""Builders of archives that can be killed, each forked from an interpreter that has imported everything once."""

import subprocess
import sys
import time

from data_sets import support_environment

SCRIPT = """
import os, signal, sys, time, traceback
from pathlib import Path
from data_sets import SlowDataset
from autotune.data.archives.store import open_or_build
from autotune.spec import LoaderConfig

while line := sys.stdin.readline():
    name, form, workers, count, root = line.rstrip().split(maxsplit=4)
    builder = os.fork()
    if not builder:
        print("begun", flush=True)
        try:
            config = LoaderConfig(archive=name, stored=form)
            open_or_build(SlowDataset(int(count)), config, Path(root), workers=int(workers))
            print("done", flush=True)
        except BaseException:
            traceback.print_exc()
            print("failed", flush=True)
        time.sleep(600)
    sys.stdin.readline()  # until it is to be killed, or nobody is left to say so
    os.kill(builder, signal.SIGKILL)
    os.waitpid(builder, 0)
    print("gone", flush=True)
"""


class KilledBuilders:
    """Builds archives of a `SlowDataset` and kills the builders; their workers end with them."""

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=support_environment(),
            text=True,
        )
        return self

    def __exit__(self, *_):
        self._process.communicate(timeout=60)

    def whole_s(self, name, form, root, *, workers, count):
        """Let one end its work, and give the seconds that it took."""
        self._begin(name, form, root, workers, count)
        started_s = time.monotonic()
        assert self._answer() == "done"
        taken_s = time.monotonic() - started_s
        self._kill()
        return taken_s

    def kill_one(self, name, form, root, *, workers, count, after_s):
        """Kill one so many seconds after it began."""
        self._begin(name, form, root, workers, count)
        time.sleep(after_s)
        self._kill()

    def _begin(self, name, form, root, workers, count):
        self._tell(f"{name} {form} {workers} {count} {root}")
        assert self._answer() == "begun"

    def _kill(self):
        """Kill the one that is under way, which may just have been done."""
        self._tell("kill")
        said = self._answer()
        assert said in ("gone", "done")
        assert said == "gone" or self._answer() == "gone"

    def _tell(self, line):
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _answer(self):
        return self._process.stdout.readline().strip()
