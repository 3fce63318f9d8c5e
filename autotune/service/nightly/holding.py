"""Holding the machine for a night: its own lock, and a lease in the registry that fences late writers off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from autotune.compose import Places, lease_held
from autotune.constants import LEASE_RENEWED_EVERY_S
from autotune.registry import open_registry
from autotune.spec import Lease
from autotune.study.lock import machine_lock


@contextmanager
def machine_held(
    machine: str, purpose: str, *, at: Places, renewed_every_s: float = LEASE_RENEWED_EVERY_S
) -> Iterator[Lease]:
    """Hold the machine while the block runs.

    The machine's lock keeps jobs of one operating system apart, and the kernel lets it go on any death. The lease
    keeps apart what does not see that lock, such as containers.

    Args:
        machine: Name of the lease: one for each machine.
        purpose: What the machine is held for, for the message to others.
        at: Where everything is kept.
        renewed_every_s: Time between renewals in seconds.

    Raises:
        MachineBusyError: Somebody else holds the machine; the message names the holder.
    """
    with (
        machine_lock(purpose, path=at.lock),
        open_registry(at.home, at.registry_url) as registry,
        lease_held(registry, machine, purpose, renewed_every_s=renewed_every_s) as lease,
    ):
        yield lease
