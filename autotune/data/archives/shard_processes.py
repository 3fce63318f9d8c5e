"""Work on numbered shards shared by forked processes that take them one by one."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from autotune.data.shared_memory import SharedNumbers
from autotune.errors import ArchiveError
from autotune.processes import die_with_parent

_POLL_S = 0.2
"""Time between two tellings of how far they are."""
_PATIENCE_S = 10.0
"""Time that processes get to end on their own once one of them failed; a sample may take long to read."""
_ENDED = 0
"""Slot of the shared numbers that says whether all of them are to end."""

Work = Callable[[Sequence[int], Callable[[], None]], int]
"""Takes the shards and what is called after each sample; gives how many shards it built."""


def in_processes(work: Work, numbers: Sequence[int], count: int, tell: Callable[[int], None]) -> int:
    """Run the same work in several processes, which divide the shards among them, and add up what they give.

    Args:
        work: What each of them does; by fork, so that the dataset is not sent.
        numbers: The shards.
        count: Number of processes.
        tell: Told how many samples they have written together.

    Raises:
        ArchiveError: One of them was killed. Whatever else one of them raised is raised here, and ends the others.
    """
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    shared = SharedNumbers(1 + count)
    at_work: dict[Connection, BaseProcess] = {}
    try:
        for slot in range(1, count + 1):
            link, theirs = context.Pipe(duplex=False)
            arguments = (work, numbers, _Told(shared, slot, os.getpid()), theirs)
            process = context.Process(target=_run, args=arguments, daemon=True)  # type: ignore[attr-defined]
            process.start()
            at_work[link] = process
            theirs.close()  # so that the end of the process is the end of the link
        return sum(_results(at_work, lambda: tell(int(shared.values[1:].sum()))))
    finally:
        shared.values[_ENDED] = 1
        for link, process in at_work.items():
            process.join(_PATIENCE_S)
            process.kill()
            process.join()
            link.close()


def _results(at_work: dict[Connection, BaseProcess], tell: Callable[[], None]) -> Iterator[int]:
    waiting = list(at_work)
    while waiting:
        for link in wait(waiting, timeout=_POLL_S):
            waiting.remove(link)  # type: ignore[arg-type]  # only links are waited for
            yield _result(link, at_work[link])  # type: ignore[arg-type,index]
        tell()


def _result(link: Connection, process: BaseProcess) -> int:
    try:
        found, told = link.recv()
    except EOFError:
        process.join()
        raise ArchiveError(
            f"a process that built shards ended with exit code {process.exitcode}; where that is -9 it was killed, "
            "maybe for want of memory: use fewer workers, and build again, as finished shards are kept"
        ) from None
    if isinstance(found, BaseException):
        found.add_note(told)
        raise found
    return int(found)


class _Told:
    """Counts samples where the parent sees it, and ends the work when the parent says so."""

    def __init__(self, shared: SharedNumbers, slot: int, parent_pid: int) -> None:
        self.parent_pid = parent_pid
        self._shared = shared
        self._slot = slot

    def __call__(self) -> None:
        self._shared.values[self._slot] += 1
        if self._shared.values[_ENDED]:
            raise InterruptedError("the builder of these shards ends")


def _run(work: Work, numbers: Sequence[int], told: _Told, link: Connection) -> None:
    die_with_parent(told.parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who interrupts a terminal reaches the parent, which ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)  # as DataLoader's workers do; threads of the parent are not there after a fork
    try:
        link.send((work(numbers, told), ""))
    except BaseException as error:  # noqa: BLE001  # the parent raises it
        link.send((_that_travels(error), traceback.format_exc()))


def _that_travels(error: BaseException) -> BaseException:
    """Give an error that the parent can be sent: itself, or one that says what it said."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    except Exception:  # noqa: BLE001  # whatever its class does
        return ArchiveError(f"a shard could not be built: {type(error).__qualname__}: {error}")
    return error
