"""What building an archive would do, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from autotune.data.archives._base import Manifest, read_manifest, sized
from autotune.data.archives.checking import check_sizes
from autotune.data.archives.estimating import estimated_bytes
from autotune.data.archives.listing import archive_name
from autotune.data.archives.shard_folder import ShardFolder
from autotune.data.archives.shard_plan import Sharding, ShardPlan, check_sharded, plan_of
from autotune.data.archives.shard_publishing import check_shard_size, plan_there, shards_folder
from autotune.data.archives.store import check_shards, place_of_archive, stored_form
from autotune.data.randomness import refuse_random, refuse_unlike_stages
from autotune.data.stages import apart
from autotune.errors import ArchiveDamagedError, ArchiveMissingError
from autotune.spec import LoaderConfig
from autotune.spec.config import SHARDED_FORMATS


@dataclass(frozen=True, kw_only=True)
class BuildPreview:
    """An archive that would be built, or is there.

    Attributes:
        name: Name that it has or will have.
        count: Number of samples.
        size_bytes: Its size; an estimate from a few samples where it is not there.
        is_there: Whether there is one whose files have their sizes; bytes are compared by the build.
        damaged: What is wrong with one that is there and would be built again, as far as sizes tell; None for nothing.
        plan: Its shards; None where the format has none, or the archive is there, damaged or not.
        finished: Number of shards that builders before have finished, by their notes.
    """

    name: str
    count: int
    size_bytes: int
    is_there: bool = False
    damaged: str | None = None
    plan: ShardPlan | None = None
    finished: int = 0


def preview(dataset: Dataset[Any], config: LoaderConfig, root: Path, sharding: Sharding) -> BuildPreview:
    """Tell what building the archive of a configuration would do; a few samples are read, and nothing is changed.

    Args:
        dataset: The source.
        config: Names format and stored form.
        root: Folder of all archives.
        sharding: How the builder would take part.

    Raises:
        ArchiveError: The dataset cannot be archived.
        RandomSamplesError: The dataset's samples are random.
        SpecError: There are shards of another size than is asked for, or the format has none.
    """
    if sharding.shard_samples is not None:
        check_sharded(config.archive)
    stored, directory = place_of_archive(dataset, config, root)
    source, form = apart(stored), (config.archive, stored_form(config))
    manifest, damaged = _found(directory)
    check_shards(manifest, directory, sharding)
    if manifest is not None and damaged is None:
        return BuildPreview(
            name=archive_name(directory), count=manifest.count, size_bytes=manifest.size_bytes, is_there=True
        )
    refuse_random(source, "archived")
    refuse_unlike_stages(source)
    estimate = BuildPreview(
        name=archive_name(directory), count=sized(stored), size_bytes=estimated_bytes(source, *form), damaged=damaged
    )
    if damaged is not None or config.archive not in SHARDED_FORMATS:
        return estimate
    begun, folder = plan_there(directory), shards_folder(directory)
    if begun is None:
        return replace(estimate, plan=plan_of(source, form, sharding.shard_samples))
    check_shard_size(begun, folder, sharding)
    return replace(estimate, plan=begun, finished=ShardFolder(folder, begun).noted())


def _found(directory: Path) -> tuple[Manifest | None, str | None]:
    """Give the manifest of an archive that is there, and what is wrong with it, as far as can be seen."""
    manifest = None
    try:
        manifest = read_manifest(directory)
        check_sizes(directory, manifest)
    except ArchiveMissingError:
        return None, None
    except ArchiveDamagedError as error:
        return manifest, str(error)
    return manifest, None
