"""The tuner's end of the trial server: starts it, sends orders, receives notices, ends it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import psutil

from autotune.errors import TrialServerError
from autotune.trial.messages import Command, Lines, Order, ServerNotice

_END_WITHIN_S = 15.0
"""How long an ending server gets to kill and reap, before it is killed itself."""


class ServerConnection:
    """A running trial server.

    Args:
        fresh: Whether it starts a fresh interpreter for each trial.
        unset: Variables of this process's environment that it does not get.
    """

    def __init__(self, *, fresh: bool, unset: Collection[str] = ()) -> None:
        ours, theirs = socket.socketpair()
        self.socket = ours
        self._lines = Lines()
        arguments = [str(theirs.fileno()), *(["fresh"] if fresh else [])]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "autotune.trial.server", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if name not in unset}
                | {"PYTHONPATH": _python_path()},
            )
        except OSError as error:
            ours.close()
            raise TrialServerError(f"the trial server cannot be started: {error}") from error
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Process number of the server."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._process.poll() is None

    def order(self, order: Order, *, pipe: int, log: int) -> None:
        """Start a trial.

        Raises:
            OSError: The server is gone.
        """
        data = Command(order=order).to_json().encode() + b"\n"
        sent = socket.send_fds(self.socket, [data], [pipe, log])
        self.socket.sendall(data[sent:])

    def kill(self) -> None:
        """Have the running trial killed; its end is noticed as any other."""
        with suppress(OSError):
            self.socket.sendall(Command(kill=True).to_json().encode() + b"\n")

    def receive(self) -> list[ServerNotice] | None:
        """Take what has arrived; None when the server is gone."""
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return None
        return [ServerNotice.from_json(line) for line in self._lines.feed(data)] if data else None

    def close(self) -> None:
        """End the server with everything that it started."""
        descendants = self._descendants()
        self.socket.close()
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for process in descendants:  # only those that a killed server could not end are left
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(descendants, timeout=_END_WITHIN_S)

    def _descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


def end_session(leader: int) -> list[int]:
    """Kill what is left of a trial whose server was killed: all processes of the session that it led.

    Returns:
        The processes, all of which have ended.
    """
    left = [process for process in psutil.process_iter() if _session(process.pid) == leader]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_END_WITHIN_S)
    return [process.pid for process in left]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _python_path() -> str:
    """Put the folder of this package on the import path, installed or not."""
    package = str(Path(__file__).resolve().parents[2])
    given = os.environ.get("PYTHONPATH")
    return f"{package}{os.pathsep}{given}" if given else package


def _has_descriptor(stream: object) -> bool:
    try:
        return stream is not None and stream.fileno() >= 0  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
