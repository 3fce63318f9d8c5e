"""Archives of which some shards are there: being built at this moment, or left by a builder that ended."""

from __future__ import annotations

from pathlib import Path

from autotune.data.archives.listing import SHARDS, archive_name, tree_bytes, unfinished
from autotune.data.archives.shard_claims import is_idle
from autotune.data.archives.shard_folder import ShardFolder
from autotune.data.archives.shard_publishing import plan_there
from autotune.spec.base import Value


class UnfinishedArchive(Value):
    """An archive of which not all shards are there yet.

    Attributes:
        name: Name that it will have.
        count: Number of samples.
        shards: Number of shards.
        finished: Number of those that are finished, by their notes.
        size_bytes: Bytes on disk.
        idle: Whether nobody works on it, as far as that can be seen from here.
    """

    name: str
    count: int
    shards: int
    finished: int
    size_bytes: int
    idle: bool


def list_unfinished(root: Path) -> tuple[UnfinishedArchive, ...]:
    """List the archives of a folder that builders have begun, shard by shard."""
    found = []
    for folder, directory in unfinished(root):
        plan = plan_there(directory) if folder.name.endswith(SHARDS) else None
        if plan is None:
            continue
        try:
            finished = ShardFolder(folder, plan).noted()
        except FileNotFoundError:  # published in this moment
            continue
        found.append(
            UnfinishedArchive(
                name=archive_name(directory),
                count=plan.count,
                shards=plan.shards,
                finished=finished,
                size_bytes=tree_bytes(folder),
                idle=is_idle(folder),
            )
        )
    return tuple(found)
