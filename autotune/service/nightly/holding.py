"""Holding the machine for a night: its own lock, and a lease in the registry that fences late writers off."""

from __future__ import annotations

import logging
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from autotune.compose import Places
from autotune.constants import LEASE_RENEWED_EVERY_S
from autotune.errors import AutotuneError, LeaseLostError, RegistryError
from autotune.processes import identity, is_gone
from autotune.registry import Registry, open_registry
from autotune.spec import Lease
from autotune.study.lock import machine_lock

_LOG = logging.getLogger(__name__)
_LAST_RENEWAL_S = 5.0


@contextmanager
def machine_held(
    machine: str, purpose: str, *, at: Places, renewed_every_s: float = LEASE_RENEWED_EVERY_S
) -> Iterator[Lease]:
    """Hold the machine while the block runs.

    The machine's lock keeps jobs of one operating system apart, and the kernel lets it go on any death. The lease
    keeps apart what does not see that lock, such as containers, and what is written under it is refused once it has
    been lost. It is renewed by a thread, which takes milliseconds a minute.

    Args:
        machine: Name of the lease: one for each machine.
        purpose: What the machine is held for, for the message to others.
        at: Where everything is kept.
        renewed_every_s: Time between renewals in seconds.

    Raises:
        MachineBusyError: Somebody else holds the machine; the message names the holder.
    """
    with machine_lock(purpose, path=at.lock), open_registry(at.home, at.registry_url) as registry:
        lease = registry.acquire_lease(
            machine,
            holder=f"{platform.node() or 'unknown'}, process {os.getpid()}",
            purpose=purpose,
            process=identity(),
            is_gone=is_gone,
        )
        ended = threading.Event()
        renewing = threading.Thread(target=_renew, args=(registry, lease, ended, renewed_every_s), daemon=True)
        renewing.start()
        try:
            yield lease
        finally:
            ended.set()
            renewing.join(_LAST_RENEWAL_S)
            with suppress(AutotuneError):  # it expires by itself
                registry.release_lease(lease)


def _renew(registry: Registry, lease: Lease, ended: threading.Event, every_s: float) -> None:
    while not ended.wait(every_s):
        try:
            registry.renew_lease(lease)
        except LeaseLostError as error:
            _LOG.error("%s", error)
            return
        except RegistryError as error:
            _LOG.warning("the lease of %s could not be renewed, which is tried again: %s", lease.name, error)
