"""The life of a trial process, from its first instruction to its exit."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import traceback
from contextlib import suppress
from typing import NoReturn

from autotune.processes import die_with_parent, let_forks_die_with_parent, prefer_as_victim
from autotune.trial.cpu_limit import limit_cpus
from autotune.trial.messages import Order, Report


def live(order: Order, *, pipe: int, log: int, parent_pid: int) -> NoReturn:
    """Become a trial process, do what was ordered, and exit without tearing anything down.

    Teardown would wait for workers that hang; the server ends them with the process group.

    Args:
        order: What to do.
        pipe: Descriptor that reports are written to.
        log: Descriptor that output goes to.
        parent_pid: The server, with which this process ends.
    """
    code = 1
    try:
        _settle(order, log=log, parent_pid=parent_pid)
        from autotune.trial.worker import work

        work(order, lambda report: _send(pipe, report))
        code = 0
    except BaseException:  # noqa: BLE001 - the exit below would hide it, and the tuner quotes the log's last line
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _settle(order: Order, *, log: int, parent_pid: int) -> None:
    """Cut the ties to server and terminal, and take over the tuner's import path."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    with suppress(PermissionError):  # a fresh interpreter leads its session already
        os.setsid()
    die_with_parent(parent_pid)
    let_forks_die_with_parent()
    prefer_as_victim()
    if order.request.cpus is not None:
        limit_cpus(order.request.cpus, order.cpu_group)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    multiprocessing.set_start_method(None, force=True)  # the platform's own, as in a training process
    os.chdir(order.folder)
    take_import_path(order)
    os.environ["TMPDIR"] = tempfile.tempdir = order.temporary
    _seed(order.request.workload.seed)
    if order.request.cpus is not None:
        import torch

        torch.set_num_threads(order.request.cpus)  # the server, which has all CPUs, has settled on more


def take_import_path(order: Order) -> None:
    """Find modules where the tuner finds them, before all others."""
    sys.path[:] = [*order.sys_path, *(entry for entry in sys.path if entry not in order.sys_path)]


def _seed(seed: int) -> None:
    """Seed everything: all trial processes begin as copies of one server, so nothing else tells them apart."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the generator that datasets of old use
    torch.manual_seed(seed)


def _send(pipe: int, report: Report) -> None:
    data = memoryview(report.to_json().encode() + b"\n")
    while data:
        data = data[os.write(pipe, data) :]


def main() -> None:
    """Live as a fresh interpreter: the order comes by standard input."""
    pipe, log, parent_pid = (int(word) for word in sys.argv[1:4])
    live(Order.from_json(sys.stdin.buffer.read()), pipe=pipe, log=log, parent_pid=parent_pid)


if __name__ == "__main__":
    main()
