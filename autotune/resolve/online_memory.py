"""Whether there is memory for what a setting takes while it is tried."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from autotune.cgroups import Cgroups
from autotune.constants import HOST_HEADROOM_SHARE, ONLINE_WORKER_BYTES
from autotune.resolve.online_setting import Setting
from autotune.units import format_bytes

_EXTRA_BATCHES = 2
"""Batches on their way beside those that are kept ready: the consumer's, and the one being written."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """Memory that may be taken now.

    Attributes:
        shared_bytes: Free shared memory; None where there is no file system for it to fill.
        host_bytes: Host memory that is available, less what is kept back.
    """

    shared_bytes: int | None
    host_bytes: int


def room_now(
    *,
    cgroups: Cgroups | None = None,
    shared: Path = Path("/dev/shm"),  # noqa: S108 - the kernel's fixed place, nothing is written
) -> Room:
    """Give the room that there is now, within the machine's memory and the limits of our control groups.

    Args:
        cgroups: Control groups; those of this process if None.
        shared: Where the file system of shared memory is.
    """
    groups = Cgroups() if cgroups is None else cgroups
    machine = psutil.virtual_memory()
    places = [(machine.total, machine.available)]
    limit, free = groups.memory_limit(), groups.memory_free()
    if limit is not None and free is not None:
        places.append((limit, free))
    kept_back = 1 - HOST_HEADROOM_SHARE
    host = min(int(available - kept_back * total) for total, available in places)
    return Room(shared_bytes=_free_on(shared), host_bytes=max(0, host))


def refusal(setting: Setting, batch_bytes: int, room: Room) -> str | None:
    """Say why there is no memory for a setting; None where there is, or it has no workers.

    Batches that are kept ready lie in shared memory, which is host memory as well. Each worker takes its own pages
    beside, and the samples of the batch that it is making.

    Args:
        setting: The setting.
        batch_bytes: Bytes of the largest batch that was seen.
        room: Memory that may be taken.
    """
    if not setting.num_workers:
        return None
    shared = (setting.in_flight + _EXTRA_BATCHES) * batch_bytes
    if room.shared_bytes is not None and shared > room.shared_bytes:
        return f"batches may take {format_bytes(shared)} of shared memory, {format_bytes(room.shared_bytes)} are free"
    host = shared + setting.num_workers * (ONLINE_WORKER_BYTES + batch_bytes)
    if host > room.host_bytes:
        return f"it may take {format_bytes(host)} of host memory, {format_bytes(room.host_bytes)} may be taken"
    return None


def _free_on(folder: Path) -> int | None:
    try:
        stats = os.statvfs(folder)
    except OSError:
        return None
    return stats.f_bavail * stats.f_frsize


__all__ = ["Room", "refusal", "room_now"]
