"""Removing archives: those used least recently first, never one that is deployed, open or being built."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import Timeout

from autotune.data.archives.holding import building_lock, taken, used_file
from autotune.data.archives.listing import REMOVING, SHARDS, ArchiveEntry, list_archives, tree_bytes, unfinished
from autotune.data.archives.shard_claims import is_idle
from autotune.errors import ArchiveError, CapacityError
from autotune.units import format_bytes

_logger = logging.getLogger(__name__)

_SHARDS_KEPT_S = 7 * 24 * 3600.0
"""Time for which shards of an archive that nobody goes on with are kept, where nothing else needs their room."""


def prune(
    root: Path,
    limit_bytes: int | None,
    keep: Collection[str] = (),
    *,
    needed_bytes: int = 0,
    ignoring: Path | None = None,
) -> tuple[ArchiveEntry, ...]:
    """Remove archives until a new one fits under the limit: damaged ones, then those used least recently.

    What a killed builder left is removed first. Where even all that may go would not be enough, nothing is removed.

    Args:
        root: Folder of archives.
        limit_bytes: Most bytes of all archives together; None is no limit.
        keep: Names of archives that stay, as `<fingerprint>/<format>-<form>`.
        needed_bytes: Size of the new one.
        ignoring: Folder in which the new one is being built.

    Returns:
        What was removed.

    Raises:
        CapacityError: It cannot be made to fit; the message names the sizes.
    """
    sweep(root)
    if limit_bytes is None:
        return ()
    entries = list_archives(root)
    if _building(root, ignoring) + sum(entry.size_bytes for entry in entries) + needed_bytes > limit_bytes:
        remove_idle(root, ignoring=ignoring)
    building = _building(root, ignoring)
    used = building + sum(entry.size_bytes for entry in entries)
    fixed = [entry for entry in entries if entry.name in keep or entry.in_use]
    _check_possible(fixed, building, needed_bytes, limit_bytes)
    removed = []
    removable = [entry for entry in entries if entry not in fixed]
    for entry in sorted(removable, key=lambda entry: (entry.state != "damaged", entry.used_at)):
        if used + needed_bytes <= limit_bytes:
            break
        with suppress(ArchiveError):  # it came into use just now, so another one has to go
            remove_archive(root, entry.name)
            used -= entry.size_bytes
            removed.append(entry)
    if used + needed_bytes > limit_bytes:
        raise _too_large([entry for entry in entries if entry not in removed], building, needed_bytes, limit_bytes)
    return tuple(removed)


def remove_archive(root: Path, name: str) -> None:
    """Remove one archive; it is gone at once for everybody who looks, even where this process is killed meanwhile.

    Raises:
        ArchiveError: It is being built, or some process has it open.
    """
    directory = root / name
    with taken(directory):
        discard(directory)
    _logger.info("removed the archive %s", name)


def discard(directory: Path) -> None:
    """Take an archive out of sight, then delete its files; the caller holds its lock."""
    aside = directory.with_name(f"{directory.name}{REMOVING}{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        directory.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)
    used_file(directory).unlink(missing_ok=True)


def sweep(root: Path) -> None:
    """Remove what killed builders and removers left; the lock of each archive says whether one is at work.

    Shards that nobody works on are kept for a week, as a later builder goes on with them.
    """
    for folder, directory in unfinished(root):
        if folder.name.endswith(SHARDS):
            if _age_s(folder) > _SHARDS_KEPT_S:
                remove_shards(folder, directory)
            continue
        with suppress(Timeout, OSError), building_lock(directory).acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


def remove_idle(root: Path, *, ignoring: Path | None = None) -> None:
    """Remove shards that nobody works on, as the room is needed.

    Args:
        root: Folder of archives.
        ignoring: Folder that stays.
    """
    for folder, directory in unfinished(root):
        if folder != ignoring and folder.name.endswith(SHARDS):
            remove_shards(folder, directory)


def remove_shards(folder: Path, directory: Path) -> None:
    """Remove the folder in which shards of an archive are built, unless somebody works on them."""
    with suppress(Timeout, OSError), building_lock(directory).acquire(timeout=0):
        if is_idle(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _age_s(folder: Path) -> float:
    with suppress(OSError):
        return time.time() - folder.stat().st_mtime
    return 0.0


def _building(root: Path, ignoring: Path | None) -> int:
    return sum(tree_bytes(folder) for folder, _ in unfinished(root) if folder != ignoring)


def _check_possible(fixed: Sequence[ArchiveEntry], building: int, needed: int, limit: int) -> None:
    if building + sum(entry.size_bytes for entry in fixed) + needed > limit:
        raise _too_large(fixed, building, needed, limit)


def _too_large(staying: Sequence[ArchiveEntry], building: int, needed: int, limit: int) -> CapacityError:
    kept = sum(entry.size_bytes for entry in staying)
    beside = [f"{format_bytes(kept)} that are deployed or in use ({len(staying)} archives)"] if staying else []
    beside += [f"{format_bytes(building)} that are being built"] if building else []
    told = f" beside {' and '.join(beside)}" if beside else ""
    return CapacityError(
        f"an archive of about {format_bytes(needed)} does not fit{told}: all archives together may take "
        f"{format_bytes(limit)}; raise the limit (AUTOTUNE_ARCHIVE_LIMIT) or use archive 'files'",
        needed,
        max(0, limit - kept - building),
    )
