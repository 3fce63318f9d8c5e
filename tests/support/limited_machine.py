"""Child processes under real limits: control groups, a small `/dev/shm`, few file descriptors, busy neighbours.

What this machine does not allow (no root, no control groups, no namespaces) skips the test with the reason.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from autotune import spec
from autotune.cgroups import Cgroups

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parent.parent


# Limits


@contextmanager
def control_group(controller, **limits):
    """Make a control group with limits, beside or below our own; give its folder.

    Args:
        controller: `memory` or `cpu`.
        **limits: Contents by file name, dots as `__`; files of the other version are left out.
    """
    parent = _parent(controller)
    folder = parent / f"autotune-test-{uuid4().hex[:8]}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        written = [name for name, text in limits.items() if _write(folder / name.replace("__", "."), text)]
        if not written:
            pytest.skip(f"the controller {controller} is not delegated to {parent}")
        tried = subprocess.run(["sh", "-c", join_group(folder)], capture_output=True, text=True, check=False)
        if tried.returncode:
            pytest.skip(f"no process can join a control group: {tried.stderr.strip()}")
        yield folder
    finally:
        _remove(folder)


def _remove(folder, within_s=20):
    """Remove a group; the kernel lets go of the last process a moment after its end."""
    end = time.monotonic() + within_s
    while True:
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def _parent(controller):
    """Give the folder in which a group can be made: of version 1 our own, of version 2 the one above."""
    own = next(Cgroups()._folders(controller), None)
    if own is not None:
        return own
    own = next(Cgroups()._folders(""), None)
    if own is None:
        pytest.skip("there are no control groups on this machine")
    return own.parent if (own.parent / "cgroup.procs").exists() else own


def _write(file, text):
    if not file.exists():
        return False
    try:
        file.write_text(text)
    except OSError as error:
        pytest.skip(f"{file} cannot be written: {error}")
    return True


def join_group(folder):
    """Give the shell command by which a process joins a group."""
    return f"echo $$ > {shlex.quote(str(folder / 'cgroup.procs'))}"


def oom_kills(folder):
    """Read the group's own counter of processes that were killed for memory."""
    for name in ("memory.oom_control", "memory.events"):
        if (folder / name).exists():
            fields = dict(line.split() for line in (folder / name).read_text().splitlines())
            if "oom_kill" in fields:
                return int(fields["oom_kill"])
    pytest.skip("this kernel does not count the processes that it kills for memory")


def in_small_shared_memory(size):
    """Give wrapper and shell command that put a process into a mount namespace with a `/dev/shm` of its own."""
    wrapper = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    setup = f"mount -t tmpfs -o size={size} autotune-test /dev/shm"
    try:
        tried = subprocess.run([*wrapper, "sh", "-c", setup], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if tried.returncode:
        pytest.skip(f"no mount namespace can be made: {tried.stderr.strip()}")
    return wrapper, setup


# Processes under them


@dataclass
class Limited:
    """What trials under limits came to.

    Attributes:
        answers: Records, inspections and failures, in the order of the orders.
        left: Processes and files in shared memory that were there after any of them.
        shared_memory: What lay in `/dev/shm` at the end.
    """

    answers: list
    left: list
    shared_memory: list


def limited_environ(folder, temporary=None):
    """Give the environment of a process whose results and lock lie in a folder, and its temporary files in another."""
    paths = [str(ROOT), str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {
        "PYTHONPATH": os.pathsep.join(paths),
        "TMPDIR": temporary or tempfile.gettempdir(),
        "AUTOTUNE_HOME": str(folder / "home"),
        "AUTOTUNE_LOCK": str(folder / "machine.lock"),
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }
    return {**{name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}, **ours}


def python_under(setup, *words, folder, wrapper=(), text=None):
    """Run Python to its end after a shell command that limits it; it must leave no temporary file."""
    command = [*wrapper, "sh", "-c", f'{setup} && exec "$@"', "sh", sys.executable, *map(str, words)]
    with tempfile.TemporaryDirectory(prefix="limited-") as temporary:  # not below `folder`: sockets need short paths
        done = subprocess.run(
            command,
            input=text,
            env=limited_environ(folder, temporary),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-3000:]}"
        assert list(Path(temporary).iterdir()) == []
    return done.stdout


def trials_under(setup, orders, *, folder, wrapper=()):
    """Run orders, pairs of task and request, by a tuner of their own that is limited with all that it starts."""
    text = json.dumps([[task, request.to_json()] for task, request in orders])
    told = python_under(setup, SUPPORT / "limited_trials.py", folder=folder, wrapper=wrapper, text=text)
    document = json.loads(told)
    found = document["found"]
    return Limited(
        answers=[getattr(spec, one["kind"]).from_json(one["answer"]) for one in found],
        left=[name for one in found for name in one["left"]],
        shared_memory=document["shared_memory"],
    )


class BusyNeighbour:
    """Programs of somebody else that take whole cores while they are wanted.

    Args:
        count: How many.
    """

    def __init__(self, count=2):
        self._count = count
        self._running = []

    @property
    def busy(self):
        return bool(self._running)

    def work(self):
        while len(self._running) < self._count:
            self._running.append(subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]))

    def rest(self):
        for process in self._running:
            process.kill()
            process.wait()
        self._running.clear()
