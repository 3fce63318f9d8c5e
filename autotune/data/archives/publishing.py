"""Building an archive out of sight and publishing it whole, once, whoever else wants it too."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from torch.utils.data import Dataset

from autotune.data.archives import FORMATS
from autotune.data.archives._base import MANIFEST_NAME, Progress, write_file
from autotune.data.archives.checking import check_sizes, write_stamps
from autotune.data.archives.estimating import estimated_bytes
from autotune.data.archives.holding import building_lock, touch_used
from autotune.data.archives.listing import BUILDING
from autotune.data.archives.pruning import discard, prune
from autotune.data.randomness import refuse_random, refuse_unlike_stages
from autotune.data.stages import apart
from autotune.errors import ArchiveStaleError, AutotuneError, CapacityError
from autotune.spec.config import StoredForm
from autotune.units import KIB, format_bytes

_logger = logging.getLogger(__name__)
_Opened = TypeVar("_Opened")

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOTHING_FREE_BYTES = 64 * KIB
"""Libraries of formats have errors of their own for a full disk; with less than this left it was that."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """An archive that is to be built.

    Attributes:
        source: The dataset that is read.
        directory: Where the archive will lie: `<root>/<fingerprint>/<format>-<form>`.
        name: Name of the format.
        stored: Stored form.
        progress: Told how many samples are stored.
        workers: Processes that read; 0 is this one.
        limit_bytes: Most bytes of all archives of the root; None is no limit.
        keep: Names of archives that are not removed for it.
    """

    source: Dataset[Any]
    directory: Path
    name: str
    stored: StoredForm
    progress: Progress | None = None
    workers: int = 0
    limit_bytes: int | None = None
    keep: Collection[str] = ()

    @property
    def root(self) -> Path:
        """Folder of all archives."""
        return self.directory.parent.parent


def build_once(job: Job, found: Callable[[], _Opened | None], built: Callable[[float], _Opened]) -> _Opened:
    """Build under a lock, so that a second builder waits and finds the archive, and give it opened.

    What lies there already and is not usable is removed first. After a kill at any point there is no archive
    or a whole one. It is opened with the lock still held, so that nobody removes it in between.

    Args:
        job: What is built.
        found: Opens an archive that is there and can be used as it is, else gives None.
        built: Opens the archive that was built; told the seconds that it took.

    Raises:
        CapacityError: The disk, or the limit, has too little room; nothing is left of the attempt.
        RandomSamplesError: The dataset's samples are random.
        ArchiveError: The dataset cannot be archived in this form, or changed meanwhile.
    """
    with _full_disk_told(job.root):
        job.directory.parent.mkdir(parents=True, exist_ok=True)
        with _patient(building_lock(job.directory)):
            opened = found()
            return built(_build(job)) if opened is None else opened


def _build(job: Job) -> float:
    started = time.monotonic()
    _remove_leftovers(job)
    refuse_random(job.source, "archived")
    refuse_unlike_stages(job.source)
    _make_room(job)
    building = job.directory.with_name(f"{job.directory.name}{BUILDING}{os.getpid()}")
    try:
        with _full_disk_told(job.root):
            building.mkdir()
            _build_into(job, building, started_s=started)
            building.rename(job.directory)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    _sync_folder(job.directory.parent)
    touch_used(job.directory)
    return time.monotonic() - started


@contextmanager
def _patient(lock: FileLock) -> Iterator[None]:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _logger.info("waiting for another process that builds %s", lock.lock_file)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build_into(job: Job, building: Path, *, started_s: float) -> None:
    manifest = FORMATS[job.name].build(
        job.source, building, stored=job.stored, progress=job.progress, workers=job.workers
    )
    if manifest.fingerprint != job.directory.parent.name:
        raise ArchiveStaleError("the source changed while its archive was built; build it again")
    if job.limit_bytes is not None:  # the estimate may have been too low, and others may have built meanwhile
        prune(job.root, job.limit_bytes, job.keep, needed_bytes=manifest.size_bytes, ignoring=building)
    manifest = manifest.replace(build_s=time.monotonic() - started_s)
    write_file(building, MANIFEST_NAME, manifest.to_json().encode())
    write_stamps(building, check_sizes(building, manifest))
    _sync_folder(building)


def _remove_leftovers(job: Job) -> None:
    """Remove what a killed builder left, and an archive that cannot be used; the lock says that none is at work."""
    for leftover in job.directory.parent.glob(f"{job.directory.name}{BUILDING}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if job.directory.exists():
        discard(job.directory)


def _make_room(job: Job) -> None:
    """Check, before anything is written, that the archive fits under the limit and onto the disk."""
    needed = estimated_bytes(apart(job.source), job.name, job.stored)
    if job.limit_bytes is not None:
        prune(job.root, job.limit_bytes, job.keep, needed_bytes=needed)
    free = _free_bytes(job.directory.parent)
    if needed > free:
        raise CapacityError(
            f"an archive {job.name!r} ({job.stored}) of this dataset needs about {format_bytes(needed)}, and "
            f"{job.root} has {format_bytes(free)} free; free some space or use archive 'files'",
            needed,
            free,
        )


@contextmanager
def _full_disk_told(root: Path) -> Iterator[None]:
    """Turn whatever error a full disk came to into a `CapacityError`."""
    try:
        yield
    except AutotuneError:
        raise
    except Exception as error:
        if _has_errno(error, _FULL) or _free_bytes(root) < _NOTHING_FREE_BYTES:
            raise _disk_full(root) from error
        raise


def _has_errno(error: BaseException | None, numbers: Collection[int]) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in numbers:
            return True
        error = error.__cause__ or error.__context__
    return False


def _free_bytes(folder: Path) -> int:
    """Give the free bytes of the disk that a folder is or will be on."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _disk_full(root: Path) -> CapacityError:
    free = _free_bytes(root)
    return CapacityError(
        f"the disk of {root} ran full while an archive was built, and what was written is removed; free some space, "
        "or name another folder by AUTOTUNE_HOME",
        free + 1,
        free,
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
