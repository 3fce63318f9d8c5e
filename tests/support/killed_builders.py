"""Builders of archives that can be killed, each forked from an interpreter that has imported everything once."""

import os
import signal
import subprocess
import sys
import time

from data_sets import support_environment

SCRIPT = """
import os, sys, time
from pathlib import Path
from data_sets import SlowDataset
from autotune.data.archives.store import open_or_build
from autotune.spec import LoaderConfig

for line in sys.stdin:
    name, form, workers, count, root = line.rstrip().split(maxsplit=4)
    builder = os.fork()
    if not builder:
        print(os.getpid(), flush=True)
        open_or_build(
            SlowDataset(int(count)), LoaderConfig(archive=name, stored=form), Path(root), workers=int(workers)
        )
        print("done", flush=True)
        time.sleep(600)
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
        builder = self._begin(name, form, root, workers, count)
        started_s = time.monotonic()
        assert self._process.stdout.readline() == "done\n"
        taken_s = time.monotonic() - started_s
        self._kill(builder)
        return taken_s

    def kill_one(self, name, form, root, *, workers, count, after_s):
        """Kill one so many seconds after it began."""
        builder = self._begin(name, form, root, workers, count)
        time.sleep(after_s)
        self._kill(builder)

    def _begin(self, name, form, root, workers, count):
        self._process.stdin.write(f"{name} {form} {workers} {count} {root}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def _kill(self, builder):
        os.kill(builder, signal.SIGKILL)
        while self._process.stdout.readline() != "gone\n":  # it may just have been done
            assert self._process.poll() is None
