"""Loading modes by name: lazily, eagerly, streamed, or cached as samples are read."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from autotune.data.apply import prepare
from autotune.data.archives._base import Progress
from autotune.spec import LoaderConfig


class LoadingMode(Enum):
    """How samples come into memory."""

    LAZY = "lazy"
    """Each is read when it is asked for."""
    EAGER = "eager"
    """All of them are read before the first is asked for, and kept in memory."""
    STREAMING = "streaming"
    """An archive is read from front to back, in an order of its own."""
    CACHED = "cached"
    """Each is read when it is asked for first, and then kept in memory."""


def mode_config(mode: LoadingMode, *, batch_size: int = 32, num_workers: int = 0, archive: str = "tar") -> LoaderConfig:
    """Give the configuration of a loading mode.

    `EAGER` and `CACHED` have the same one: they differ in when the cache is filled (`is_filled_first`).

    Args:
        mode: The mode.
        batch_size: Samples in a batch.
        num_workers: Worker processes.
        archive: Format that `STREAMING` reads.
    """
    settings: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers}
    if mode is LoadingMode.STREAMING:
        return LoaderConfig(**settings, archive=archive, order="streaming")
    if is_filled_first(mode) or mode is LoadingMode.CACHED:
        return LoaderConfig(**settings, cache="memory")
    return LoaderConfig(**settings)


def is_filled_first(mode: LoadingMode) -> bool:
    """Tell whether the cache of a mode is filled before the first sample is asked for."""
    return mode is LoadingMode.EAGER


def load_in_mode(
    dataset: Dataset[Any],
    mode: LoadingMode | str,
    *,
    archive_root: Path | None = None,
    archive: str = "tar",
    limit_bytes: int | None = None,
    progress: Progress | None = None,
) -> Dataset[Any]:
    """Give a dataset that is loaded in a mode; it goes into `make_loader` or any DataLoader class.

    Args:
        dataset: A map-style dataset.
        mode: The mode, or its value.
        archive_root: Folder of archives, for `STREAMING`; the archive is built there where it is missing.
        archive: Its format.
        limit_bytes: Most bytes of memory for `EAGER` and `CACHED`: what does not fit is read when it is asked
            for. None is what the machine has available.
        progress: Told how many samples are stored, or read into memory.

    Raises:
        SpecError: `STREAMING` has no folder of archives.
        ArchiveError: Samples cannot be kept, or the archive cannot be used.
        CapacityError: Not even one sample fits.
        RandomSamplesError: Samples are random and not told apart in stages.
    """
    chosen = LoadingMode(mode)
    prepared = prepare(
        dataset,
        mode_config(chosen, archive=archive),
        archive_root=archive_root,
        limit_bytes=limit_bytes,
        progress=progress,
    )
    if is_filled_first(chosen) and prepared.cache is not None:
        prepared.cache.fill(progress)
    return prepared.dataset
