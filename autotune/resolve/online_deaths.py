"""Deaths of workers are told between steps, however many loaders there are."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from autotune.signals import signal_held


@contextmanager
def deaths_held(*, workers: bool) -> Iterator[None]:
    """Tell of a worker's death only when the consumer has done with its batch.

    torch raises it from a signal handler, which is in the middle of the consumer's training step as likely as not; here
    nobody could read the missing batches again. Where steps of several loaders interleave, what came is told when none
    is left; until then, torch finds a dead worker where it waits for it.

    Args:
        workers: Whether there are workers.
    """
    if not workers:
        yield
        return
    with signal_held(signal.SIGCHLD):
        yield


__all__ = ["deaths_held"]
