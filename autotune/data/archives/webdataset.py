"""Shards that the `webdataset` package reads: plain tars, a key for each sample.

They are written here rather than by its `TarWriter`, which works in one process and does not tell where
it put what; its reader takes ours as its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from autotune.data.archives._base import Manifest, Progress, read_manifest
from autotune.data.archives.shard_building import Builder
from autotune.data.archives.shard_plan import Sharding, plan_of
from autotune.data.archives.shard_sealing import sealed
from autotune.data.archives.tar import INDEX_NAME, FolderReader
from autotune.spec.config import StoredForm


class WebDatasetFormat:
    """Samples in shards: original bytes by part (`encoded`), or `<sample>.<leaf>.npy` (`decoded`)."""

    def build(
        self,
        source: Dataset[Any],
        directory: Path,
        *,
        stored: StoredForm = "decoded",
        progress: Progress | None = None,
        workers: int = 0,
    ) -> Manifest:
        """Store every sample of `source` in shards, each sample whole in one of them."""
        plan = plan_of(source, ("webdataset", stored))
        builder = Builder.of(source, directory, plan, Sharding())
        builder.build_missing(workers=workers, progress=progress)
        return sealed(source, builder.folder)

    def open(self, directory: Path) -> Dataset[Any]:
        """Open the shards by the index; each is opened at the first access, in each process anew."""
        names = tuple(sorted(name for name in read_manifest(directory).files if name != INDEX_NAME))
        return FolderReader(directory, names, None)
