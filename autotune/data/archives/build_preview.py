"""What building an archive would do, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from autotune.data.archives._base import MANIFEST_NAME, read_manifest, sized
from autotune.data.archives.estimating import estimated_bytes
from autotune.data.archives.listing import archive_name
from autotune.data.archives.shard_folder import ShardFolder
from autotune.data.archives.shard_plan import Sharding, ShardPlan, plan_of
from autotune.data.archives.shard_publishing import plan_there, shards_folder
from autotune.data.archives.store import place_of_archive, stored_form
from autotune.data.stages import apart
from autotune.spec import LoaderConfig
from autotune.spec.config import SHARDED_FORMATS


@dataclass(frozen=True, kw_only=True)
class BuildPreview:
    """An archive that would be built, or is there.

    Attributes:
        name: Name that it has or will have.
        count: Number of samples.
        size_bytes: Its size; an estimate from a few samples where it is not there.
        is_there: Whether there is one, of which nothing was read.
        plan: Its shards; None where the format has none, or the archive that is there does not tell.
        finished: Number of shards that builders before have finished.
    """

    name: str
    count: int
    size_bytes: int
    is_there: bool = False
    plan: ShardPlan | None = None
    finished: int = 0


def preview(dataset: Dataset[Any], config: LoaderConfig, root: Path, sharding: Sharding) -> BuildPreview:
    """Tell what building the archive of a configuration would do; a few samples are read.

    Args:
        dataset: The source.
        config: Names format and stored form.
        root: Folder of all archives.
        sharding: How the builder would take part.

    Raises:
        ArchiveError: The dataset cannot be archived.
    """
    stored, directory = place_of_archive(dataset, config, root)
    form = (config.archive, stored_form(config))
    source, count = apart(stored), sized(stored)
    if (directory / MANIFEST_NAME).exists():
        manifest = read_manifest(directory)
        return BuildPreview(
            name=archive_name(directory), count=manifest.count, size_bytes=manifest.size_bytes, is_there=True
        )
    estimate = BuildPreview(name=archive_name(directory), count=count, size_bytes=estimated_bytes(apart(stored), *form))
    if config.archive not in SHARDED_FORMATS:
        return estimate
    begun = plan_there(directory)
    plan = begun or plan_of(source, form, sharding.shard_samples)
    finished = 0
    if begun is not None:
        finished = plan.shards - len(ShardFolder(shards_folder(directory), plan).missing(range(plan.shards)))
    return BuildPreview(name=estimate.name, count=count, size_bytes=estimate.size_bytes, plan=plan, finished=finished)
