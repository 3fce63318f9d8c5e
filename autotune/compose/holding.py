"""Holding a name in the registry for as long as a block runs: a lease that fences late writers off."""

from __future__ import annotations

import logging
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from autotune.constants import LEASE_RENEWED_EVERY_S
from autotune.errors import AutotuneError, LeaseLostError, RegistryError
from autotune.processes import identity, is_gone
from autotune.registry import Registry
from autotune.spec import Lease

_LOG = logging.getLogger(__name__)
_LAST_RENEWAL_S = 5.0


@contextmanager
def lease_held(
    registry: Registry, name: str, purpose: str, *, renewed_every_s: float = LEASE_RENEWED_EVERY_S
) -> Iterator[Lease]:
    """Hold a lease while the block runs; what is written under it is refused once it has been lost.

    It is renewed by a thread, which takes milliseconds a minute.

    Args:
        registry: Where the lease is; it must stay open for as long.
        name: What is held.
        purpose: What for, for the message to others.
        renewed_every_s: Time between renewals in seconds.

    Raises:
        MachineBusyError: Somebody else holds it; the message names the holder.
    """
    lease = registry.acquire_lease(name, holder=this_process(), purpose=purpose, process=identity(), is_gone=is_gone)
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


def this_process() -> str:
    """Name this process for people on other machines."""
    return f"{platform.node() or 'unknown'}, process {os.getpid()}"


def _renew(registry: Registry, lease: Lease, ended: threading.Event, every_s: float) -> None:
    while not ended.wait(every_s):
        try:
            registry.renew_lease(lease)
        except LeaseLostError as error:
            _LOG.error("%s", error)
            return
        except RegistryError as error:
            _LOG.warning("the lease of %s could not be renewed, which is tried again: %s", lease.name, error)
