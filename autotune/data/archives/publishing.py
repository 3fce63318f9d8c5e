"""Building an archive out of sight and publishing it whole, once, whoever else wants it too."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from torch.utils.data import Dataset

from autotune.data.archives import FORMATS
from autotune.data.archives._base import MANIFEST_NAME, Manifest, Progress, write_file
from autotune.data.archives.checking import check_sizes, write_stamps
from autotune.data.archives.disk_room import check_free, free_bytes, full_disk_told
from autotune.data.archives.estimating import estimated_bytes
from autotune.data.archives.holding import building_lock, touch_used
from autotune.data.archives.listing import BUILDING, tree_bytes
from autotune.data.archives.pruning import discard, prune, remove_idle
from autotune.data.archives.shard_folder import sync_folder
from autotune.data.archives.shard_plan import Sharding
from autotune.data.randomness import refuse_random, refuse_unlike_stages
from autotune.data.stages import apart
from autotune.errors import ArchiveStaleError
from autotune.spec.config import StoredForm

_logger = logging.getLogger(__name__)
_Opened = TypeVar("_Opened")


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
        sharding: How this builder takes part, where the format comes in shards.
    """

    source: Dataset[Any]
    directory: Path
    name: str
    stored: StoredForm
    progress: Progress | None = None
    workers: int = 0
    limit_bytes: int | None = None
    keep: Collection[str] = ()
    sharding: Sharding = field(default_factory=Sharding)

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
    with full_disk_told(job.root):
        job.directory.parent.mkdir(parents=True, exist_ok=True)
        with patient(building_lock(job.directory)):
            opened = found()
            return built(_build(job)) if opened is None else opened


def _build(job: Job) -> float:
    started = time.monotonic()
    _remove_leftovers(job)
    refuse_random(job.source, "archived")
    refuse_unlike_stages(job.source)
    make_room(job)
    building = job.directory.with_name(f"{job.directory.name}{BUILDING}{os.getpid()}")
    try:
        with full_disk_told(job.root):
            building.mkdir()
            _build_into(job, building, started_s=started)
            publish(job, building)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return time.monotonic() - started


@contextmanager
def patient(lock: FileLock) -> Iterator[None]:
    """Hold a lock while the block runs, and say so where that takes waiting."""
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
    ready(job, building, manifest, build_s=time.monotonic() - started_s)


def ready(job: Job, building: Path, manifest: Manifest, *, build_s: float) -> None:
    """Have a folder that holds a whole archive fit to be published: of the source as it is, and under the limit.

    Raises:
        ArchiveStaleError: The source has changed.
        CapacityError: The limit has too little room.
    """
    if manifest.fingerprint != job.directory.parent.name:
        raise ArchiveStaleError("the source changed while its archive was built; build it again")
    if job.limit_bytes is not None:  # the estimate may have been too low, and others may have built meanwhile
        prune(job.root, job.limit_bytes, job.keep, needed_bytes=manifest.size_bytes, ignoring=building)
    manifest = manifest.replace(build_s=build_s)
    write_file(building, MANIFEST_NAME, manifest.to_json().encode())
    write_stamps(building, check_sizes(building, manifest))
    sync_folder(building)


def _remove_leftovers(job: Job) -> None:
    """Remove what a killed builder left, and an archive that cannot be used; the lock says that none is at work."""
    for leftover in job.directory.parent.glob(f"{job.directory.name}{BUILDING}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if job.directory.exists():
        discard(job.directory)


def publish(job: Job, building: Path) -> None:
    """Let everybody see an archive that is ready, at once and whole."""
    building.rename(job.directory)
    sync_folder(job.directory.parent)
    touch_used(job.directory)


def make_room(job: Job, building: Path | None = None) -> None:
    """Check, before anything is written, that the archive fits under the limit and onto the disk.

    Args:
        job: What is built.
        building: Folder that holds a part of it already, if any.

    Raises:
        CapacityError: It does not.
    """
    there = 0 if building is None else tree_bytes(building)
    needed = max(0, estimated_bytes(apart(job.source), job.name, job.stored) - there)
    if job.limit_bytes is not None:
        prune(job.root, job.limit_bytes, job.keep, needed_bytes=needed + there, ignoring=building)
    if needed > free_bytes(job.directory.parent):
        remove_idle(job.root, ignoring=building)
    check_free(job.root, needed, f"an archive {job.name!r} ({job.stored}) of this dataset")
