"""An archive in shards, built by all who work on the same folder and published once, when the last shard is there."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from autotune.data.archives._base import MANIFEST_NAME, sized
from autotune.data.archives.disk_room import full_disk_told
from autotune.data.archives.holding import building_lock, held
from autotune.data.archives.listing import SHARDS
from autotune.data.archives.pruning import prune, remove_shards
from autotune.data.archives.publishing import Job, make_room, patient, publish, ready
from autotune.data.archives.shard_building import Builder
from autotune.data.archives.shard_folder import PLAN_NAME, ShardFolder, create_whole
from autotune.data.archives.shard_plan import Sharding, ShardPlan, plan_of
from autotune.data.archives.shard_sealing import before_repair, finished_shards, reopen, sealed
from autotune.data.randomness import refuse_random, refuse_unlike_stages
from autotune.errors import ArchiveDamagedError, ArchiveMissingError, ArchiveStaleError, SpecError

_logger = logging.getLogger(__name__)
_Opened = TypeVar("_Opened")

_KEPT = (
    "the shards that were finished are kept until something else needs their room (`autotune archive remove "
    "--unfinished` removes them)"
)


def build_together(job: Job, found: Callable[[], _Opened | None], built: Callable[[float], _Opened]) -> _Opened:
    """Build the shards that are missing together with others who do, publish the archive once, and give it opened.

    What killed builders have finished is gone on with, and so are the whole shards of a damaged archive. Whoever finds
    all shards there publishes them. It is opened with the lock held, so that nobody removes it in between.

    Args:
        job: What is built.
        found: Opens an archive that is there and can be used as it is, else gives None.
        built: Opens the archive that was built; told the seconds that this builder was at it.

    Raises:
        CapacityError: The disk, or the limit, has too little room; finished shards are kept.
        RandomSamplesError: The dataset's samples are random.
        SpecError: Shards of another size are being built there.
        ArchiveError: The dataset cannot be archived in this form, or changed meanwhile.
    """
    started_s = time.monotonic()
    with full_disk_told(job.root, _KEPT), _useless_removed(job), ExitStack() as stack:
        job.directory.parent.mkdir(parents=True, exist_ok=True)
        with patient(building_lock(job.directory)):
            opened = found()
            if opened is not None:
                return opened
            builder = _taking_part(job, stack)
        while True:
            with _gone_when_published(builder):
                builder.build_missing(workers=job.workers, progress=job.progress)
            with patient(building_lock(job.directory)):
                if _is_published(job, builder, started_s):
                    return built(time.monotonic() - started_s)
                builder = _taking_part(job, stack)  # which knows of no shard that was damaged since


def shards_folder(directory: Path) -> Path:
    """Give the folder in which the shards of an archive are built."""
    return directory.with_name(f"{directory.name}{SHARDS}")


def plan_there(directory: Path) -> ShardPlan | None:
    """Give the plan by which the shards of an archive are being built; None where there is none."""
    try:
        return ShardPlan.from_json((shards_folder(directory) / PLAN_NAME).read_bytes())
    except (OSError, SpecError):
        return None


def _taking_part(job: Job, stack: ExitStack) -> Builder:
    """Give the builder of what is missing, seen to be at work until the stack is closed; the caller holds the lock."""
    folder, plan = shards_folder(job.directory), _joined(job)
    stack.enter_context(held(folder / PLAN_NAME))
    return Builder.of(job.source, folder, plan, job.sharding)


def _joined(job: Job) -> ShardPlan:
    """Go on with the shards that are there, those of a damaged archive too, or begin; the caller holds the lock."""
    folder, refused = shards_folder(job.directory), job.directory.exists()
    if refused:
        shutil.rmtree(folder, ignore_errors=True)  # older than the archive
        job.directory.rename(folder)
    if plan_there(job.directory) is None and not reopen(folder, refused=refused):
        shutil.rmtree(folder, ignore_errors=True)
    plan = plan_there(job.directory)
    if plan is not None and not _is_of(plan, job):
        shutil.rmtree(folder)
        plan = None
    if plan is None:
        return _begun(job, folder)
    check_shard_size(plan, folder, job.sharding)
    make_room(job, folder)
    _logger.info("going on with the shards of %s", folder)
    return plan


def check_shard_size(plan: ShardPlan, folder: Path, sharding: Sharding) -> None:
    """Refuse to go on with shards of another size than is asked for.

    Raises:
        SpecError: They have another size.
    """
    asked = sharding.shard_samples
    if asked is not None and min(asked, plan.count) != plan.shard_samples:
        raise SpecError(
            f"shards of {plan.shard_samples} samples are being built in {folder}, got {asked}; give that size or none "
            "to go on with them, or begin anew after `autotune archive remove --unfinished`"
        )


def _begun(job: Job, folder: Path) -> ShardPlan:
    refuse_random(job.source, "archived")
    refuse_unlike_stages(job.source)
    make_room(job)
    plan = plan_of(job.source, (job.name, job.stored), job.sharding.shard_samples)
    folder.mkdir(exist_ok=True)
    create_whole(folder, PLAN_NAME, plan.to_json().encode())
    return plan_there(job.directory) or plan  # where locks do not reach other machines, the first plan counts


def _is_of(plan: ShardPlan, job: Job) -> bool:
    found = (plan.format, plan.stored, plan.count, plan.fingerprint)
    return found == (job.name, job.stored, sized(job.source), job.directory.parent.name)


def _is_published(job: Job, builder: Builder, started_s: float) -> bool:
    """Publish what is complete, unless another builder has; the caller holds the lock.

    Returns:
        Whether the archive is there; not where a shard was found damaged and is missing again.
    """
    if (job.directory / MANIFEST_NAME).exists():
        return True
    folder = builder.folder
    if not folder.directory.exists():
        raise ArchiveMissingError(f"the archive {job.directory} was removed while it was built; build it again")
    try:
        _check_limit(job, folder)
        build_s = max(time.monotonic() - started_s, _others_s(job, folder))
        ready(job, folder.directory, sealed(job.source, folder), build_s=build_s)
    except ArchiveDamagedError as error:
        _logger.warning("building shards again: %s", error)
        return False
    except ArchiveStaleError:
        shutil.rmtree(folder.directory, ignore_errors=True)
        raise
    publish(job, folder.directory)
    return True


def _check_limit(job: Job, folder: ShardFolder) -> None:
    """Make room for what turned out to be larger than estimated, while the shards can still be gone on with.

    Raises:
        CapacityError: The limit has too little room.
    """
    if job.limit_bytes is not None:
        needed = sum(shard.tar.size_bytes + shard.index.size_bytes for shard in finished_shards(folder).values())
        prune(job.root, job.limit_bytes, job.keep, needed_bytes=needed, ignoring=folder.directory)


def _others_s(job: Job, folder: ShardFolder) -> float:
    """Give the seconds that an archive takes by what its shards took, and by what it took before it was damaged.

    Raises:
        ArchiveStaleError: The latter cannot be read, nor can repaired shards be compared then.
    """
    written_s = sum(shard.took_s for shard in finished_shards(folder).values())
    alone_s = written_s / max(1, job.workers) / job.sharding.world_size  # what was gone on with has cost time too
    before = before_repair(folder.directory)
    return max(alone_s, 0.0 if before is None else before.build_s)


@contextmanager
def _gone_when_published(builder: Builder) -> Iterator[None]:
    """Take a folder that is gone for one that another builder has published; the caller looks whether it has."""
    try:
        yield
    except FileNotFoundError:
        if builder.folder.directory.exists():
            raise


@contextmanager
def _useless_removed(job: Job) -> Iterator[None]:
    """Remove shards that no builder can go on with, after an error, unless another one works on them."""
    try:
        yield
    except ArchiveStaleError:
        remove_shards(shards_folder(job.directory), job.directory)
        raise
    except BaseException:
        folder = shards_folder(job.directory)
        if not any(path.name != PLAN_NAME for path in folder.glob("*.json")):
            remove_shards(folder, job.directory)
        raise
