"""Says what the end of a process without a result comes to."""

from __future__ import annotations

import signal

from autotune.spec import Failure, FailureKind

LONGEST_MESSAGE = 600
"""Characters of a failure's message at most."""


def died(exit_code: int | None, *, phase: str, oom_kills: int, log: str) -> Failure:
    """Say what the end of a trial process without a result comes to.

    Args:
        exit_code: Its exit code; the negative signal where one killed it; None is unknown.
        phase: The phase in which it died.
        oom_kills: Processes that the kernel killed for memory meanwhile.
        log: The last of its output.
    """
    how = "ended without a result" if exit_code is None else f"ended with exit code {exit_code} and without a result"
    if exit_code is not None and exit_code < 0:
        how = f"was killed by {signal_name(-exit_code)}"
    kind: FailureKind = "crashed"
    if exit_code == -signal.SIGKILL and oom_kills > 0:
        kind, how = "host_memory", f"was killed for memory (the kernel's count of such kills rose by {oom_kills})"
    elif exit_code == -signal.SIGBUS:
        kind, how = "shared_memory", f"{how}: shared memory was used up"
    tail = f"; its output ended: {log}" if log else ""
    message = f"the trial process {how} in phase {phase!r}{tail}"[:LONGEST_MESSAGE]
    return Failure(kind=kind, phase=phase, message=message, retryable=kind == "crashed")


def signal_name(number: int) -> str:
    """Name a signal, as `SIGKILL`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
