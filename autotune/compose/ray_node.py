"""`NodeMachine`: what runs on a node of a Ray cluster. It holds the machine and measures there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil

from autotune import __version__
from autotune.errors import AutotuneError, MachineBusyError, TrialServerError
from autotune.home import archive_limit_bytes, disk_cache_limit_bytes, home_folder, lock_file
from autotune.spec import Failure, TrialRequest
from autotune.study.lock import machine_lock
from autotune.trial import LocalRunner
from autotune.trial.payload import private_file
from autotune.trial.ray_messages import NodeAnswer, NodeOrder

_THREADS_VARIABLE = "OMP_NUM_THREADS"


class NodeMachine:
    """Measures on the node that it runs on; a `autotune.trial.ray.NodeProgram`.

    Archives and caches are kept in the node's own home folder, unless the driver names another one: where that is
    shared by nodes, what one of them builds is there for all.
    """

    def __init__(self) -> None:
        self._held = ExitStack()
        self._sent = ExitStack()
        self._runner: LocalRunner | None = None
        self._home = Path()
        self._payload_path: str | None = None

    def begin(self, order: str, payload: bytes | None) -> str:
        """Take the machine's lock, and keep what has no dotted path in a private file."""
        told = NodeOrder.from_json(order)
        if told.version != __version__:
            return NodeAnswer(
                refusal=f"it has autotune {__version__}, the driver {told.version}; install the same version on both"
            ).to_json()
        try:
            self._take_place(told)
            self._held.enter_context(machine_lock(told.purpose, path=_lock_of(told.emulated_node)))
            if payload is not None:
                self._keep(payload, told.emulated_node)
        except MachineBusyError as error:
            return NodeAnswer(busy=str(error)).to_json()
        except (AutotuneError, OSError) as error:
            return NodeAnswer(refusal=str(error)).to_json()
        self._runner = LocalRunner(emulated_node=told.emulated_node, unset=_set_by_ray())
        return NodeAnswer().to_json()

    def measure(self, request: str) -> str:
        """Measure a request."""
        return self._answered(lambda runner: NodeAnswer(record=runner.run(self._here(request))))

    def inspect(self, request: str) -> str:
        """Look at a request's dataset and this machine."""

        def look(runner: LocalRunner) -> NodeAnswer:
            found = runner.inspect(self._here(request))
            return NodeAnswer(failure=found) if isinstance(found, Failure) else NodeAnswer(inspection=found)

        return self._answered(look)

    def probe(self, request: str) -> str:
        """Look at where time and memory go."""

        def look(runner: LocalRunner) -> NodeAnswer:
            found = runner.probe(self._here(request))
            return NodeAnswer(failure=found) if isinstance(found, Failure) else NodeAnswer(profile=found)

        return self._answered(look)

    def leave(self) -> str:
        """Remove the private file; the kernel frees the machine once this process has ended."""
        self._sent.close()
        return NodeAnswer().to_json()

    def _answered(self, work: Callable[[LocalRunner], NodeAnswer]) -> str:
        if self._runner is None:
            return NodeAnswer(refusal="it was given a request before it held its machine").to_json()
        try:
            return work(self._runner).to_json()
        except TrialServerError as error:
            return NodeAnswer(no_server=str(error)).to_json()

    def _take_place(self, told: NodeOrder) -> None:
        """Go where the driver is, as far as this machine has that, and find modules where it finds them."""
        if Path(told.folder).is_dir():
            os.chdir(told.folder)
        sys.path += [entry for entry in told.sys_path if entry not in sys.path and Path(entry).exists()]
        self._home = home_folder(told.home)
        self._home.mkdir(parents=True, exist_ok=True)

    def _keep(self, payload: bytes, node: str | None) -> None:
        name = "payload-" + "-".join([os.uname().nodename, *([node] if node else [])]) + ".pkl"
        self._payload_path = str(self._sent.enter_context(private_file(payload, self._home / name)))

    def _here(self, request: str) -> TrialRequest:
        """Give a request with the folders of this machine."""
        return TrialRequest.from_json(request).replace(
            payload_path=self._payload_path,
            archive_root=str(self._home / "archives"),
            cache_root=str(self._home / "cache"),
            archive_limit_bytes=archive_limit_bytes(self._home),
            cache_limit_bytes=disk_cache_limit_bytes(self._home),
        )


def _set_by_ray() -> tuple[str, ...]:
    """Name what Ray sets in its workers alone: with its number of threads another machine would be measured.

    Ray sets it where nobody else did, so it is Ray's where the process that started this one has none.
    """
    try:
        raylet = psutil.Process().parent()
        given = {} if raylet is None else raylet.environ()
    except psutil.Error:
        given = {}
    return () if _THREADS_VARIABLE in given else (_THREADS_VARIABLE,)


def _lock_of(node: str | None) -> Path:
    """Give the file whose lock holds this machine; nodes that share a host each have one of their own."""
    lock = lock_file()
    return lock if node is None else lock.with_name(f"{lock.stem}-{node}{lock.suffix}")
