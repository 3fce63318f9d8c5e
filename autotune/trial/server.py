"""The trial server: preloads torch and forks one process a trial.

It is started as `python -m autotune.trial.server <socket descriptor> [fresh]`, opens no file that
must not be held across a fork, and never imports the user's `__main__`. It ends, and every
trial with it, when the tuner's end of the socket is closed or the tuner is gone.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from autotune.processes import adopt_orphans
from autotune.trial.child import live, take_import_path
from autotune.trial.cpu_limit import remove_group
from autotune.trial.leftovers import remove_shared_memory
from autotune.trial.messages import Command, Lines, Order, ServerNotice
from autotune.trial.preload import ALWAYS, preload

_CHECK_TUNER_EVERY_S = 1.0
"""End of file on the socket comes late when another process inherited the tuner's end."""
_REAP_WITHIN_S = 10.0
_REAP_PAUSE_S = 0.005


class TrialServer:
    """Serves one tuner over one socket.

    Args:
        connection: Our end of the socket.
        fresh: Start a fresh interpreter for each trial instead of forking.
    """

    def __init__(self, connection: socket.socket, *, fresh: bool = False) -> None:
        self._connection = connection
        self._fresh = fresh
        self._lines = Lines()
        self._descriptors: list[int] = []
        self._tuner_pid = os.getppid()
        self._leader: int | None = None
        self._temporary: str | None = None
        self._group: str | None = None
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        os.set_blocking(self._woken, False)

    def serve(self) -> None:
        """Serve until the tuner is gone, and end every trial then."""
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _note)
        signal.signal(signal.SIGTERM, _leave)
        adopt_orphans()
        try:
            while os.getppid() == self._tuner_pid:
                ours = self._connection.fileno()
                ready, _, _ = select.select([ours, self._woken], [], [], _CHECK_TUNER_EVERY_S)
                if self._woken in ready:
                    with suppress(BlockingIOError):
                        os.read(self._woken, 4096)
                if self._leader is not None and _has_ended(self._leader):
                    self._finish()
                if ours in ready and not self._listen():
                    return
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            leader = self._leader
            _, pids = self._end_all()
            # a tuner that was killed can remove neither
            remove_shared_memory([*pids, *([] if leader is None else [leader])])
            if self._temporary is not None:
                shutil.rmtree(self._temporary, ignore_errors=True)
            if self._group is not None:
                remove_group(Path(self._group))

    def _listen(self) -> bool:
        """Take commands; False at the end of the socket."""
        data, descriptors, _, _ = socket.recv_fds(self._connection, 1 << 16, 4)
        self._descriptors += descriptors
        if not data:
            return False
        for line in self._lines.feed(data):
            command = Command.from_json(line)
            if command.kill and self._leader is not None:
                with suppress(ProcessLookupError):
                    os.kill(self._leader, signal.SIGKILL)  # its descendants follow when its end is noticed
            if command.order is not None:
                pipe, log = self._descriptors
                self._descriptors = []
                self._temporary, self._group = command.order.temporary, command.order.cpu_group
                self._leader = self._start(command.order, pipe, log)
                os.close(pipe)
                os.close(log)
                self._tell(ServerNotice(started_pid=self._leader))
        return True

    def _start(self, order: Order, pipe: int, log: int) -> int:
        own = os.getpid()
        if self._fresh:
            return _start_fresh(order, pipe, log)
        missing = [name for name in order.preload if name not in sys.modules]
        if missing:
            take_import_path(order)
            preload(missing)
        pid = os.fork()
        if pid:
            return pid
        signal.set_wakeup_fd(-1)
        for descriptor in (self._connection.fileno(), self._woken, self._waker):
            os.close(descriptor)
        self._connection.detach()
        return live(order, pipe=pipe, log=log, parent_pid=own)

    def _finish(self) -> None:
        """Clear away what is left of the trial that has ended, and tell the tuner."""
        leader = self._leader
        code, pids = self._end_all()
        self._tell(ServerNotice(ended_pid=leader, exit_code=code, pids=tuple(pids)))

    def _end_all(self) -> tuple[int | None, list[int]]:
        """Kill and reap every descendant, stopped ones and those of other sessions included."""
        leader, self._leader = self._leader, None
        code: int | None = None
        killed: set[int] = set()
        deadline_s = time.monotonic() + _REAP_WITHIN_S
        while time.monotonic() < deadline_s:
            for process in psutil.Process().children(recursive=True):
                killed.add(process.pid)
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            try:
                while (found := os.waitpid(-1, os.WNOHANG))[0]:
                    if found[0] == leader:
                        code = os.waitstatus_to_exitcode(found[1])
            except ChildProcessError:
                break
            time.sleep(_REAP_PAUSE_S)
        return code, sorted(killed - {leader})

    def _tell(self, notice: ServerNotice) -> None:
        self._connection.sendall(notice.to_json().encode() + b"\n")


def _start_fresh(order: Order, pipe: int, log: int) -> int:
    arguments = [str(pipe), str(log), str(os.getpid())]
    process = subprocess.Popen(
        [sys.executable, "-m", "autotune.trial.child", *arguments],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        pass_fds=(pipe, log),
        start_new_session=True,
    )
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(order.to_json().encode())
    return process.pid


def _has_ended(pid: int) -> bool:
    """Tell whether a child has ended, without reaping it: its number stays taken until its group is gone."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _note(_number: int, _frame: object) -> None:
    """Do nothing: the wake-up descriptor does it."""


def _leave(_number: int, _frame: object) -> None:
    sys.exit(0)


def main() -> None:
    """Preload and serve."""
    fresh = "fresh" in sys.argv[2:]
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    if not fresh:
        preload(ALWAYS)
    TrialServer(connection, fresh=fresh).serve()


if __name__ == "__main__":
    main()
