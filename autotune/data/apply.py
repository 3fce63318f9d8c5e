"""How a configuration is put around a dataset: archive, cache and the loader's arguments."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from autotune.data.archives._base import Progress
from autotune.data.archives.store import OpenedArchive, open_or_build, stored_form
from autotune.data.caches import CACHE_MODES
from autotune.data.caches._base import CachedDataset
from autotune.data.decoders import with_decoder
from autotune.data.streaming import StreamedArchive
from autotune.data.whole_batch import collate_whole
from autotune.data.wrapped import WrappedDataset
from autotune.errors import SpecError
from autotune.spec import LoaderConfig


class Applied(NamedTuple):
    """A configuration as any DataLoader class takes it.

    Attributes:
        dataset: The dataset, with archive and cache inside it.
        arguments: Keyword arguments for the DataLoader class.
    """

    dataset: Dataset[Any]
    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A configuration applied, with what it took.

    Attributes:
        dataset: The dataset, with archive and cache inside it.
        arguments: Keyword arguments for the DataLoader class.
        archive: The archive that was opened or built; None for plain files.
        cache: The cache, empty as yet unless it survives on disk (`fill()` fills it); None without one.
    """

    dataset: Dataset[Any]
    arguments: dict[str, Any]
    archive: OpenedArchive | None = None
    cache: CachedDataset | None = None


def apply(
    dataset: Dataset[Any],
    config: LoaderConfig,
    *,
    archive_root: Path | None = None,
    cache_root: Path | None = None,
    limit_bytes: int | None = None,
    build: bool = True,
    progress: Progress | None = None,
) -> Applied:
    """Turn a dataset and a configuration into what a DataLoader class takes.

    Plain files without a cache give the dataset object itself. `autotune.data.build.make_loader` makes each pass over
    it another epoch of a random stage; over another loader the caller sets each (`set_epoch` of the dataset). For the
    errors see `prepare`.
    """
    prepared = prepare(
        dataset,
        config,
        archive_root=archive_root,
        cache_root=cache_root,
        limit_bytes=limit_bytes,
        build=build,
        progress=progress,
    )
    return Applied(prepared.dataset, prepared.arguments)


def prepare(
    dataset: Dataset[Any],
    config: LoaderConfig,
    *,
    archive_root: Path | None = None,
    cache_root: Path | None = None,
    limit_bytes: int | None = None,
    device: torch.device | None = None,
    build: bool = True,
    build_workers: int = 0,
    archive_limit_bytes: int | None = None,
    kept_archives: Collection[str] = (),
    progress: Progress | None = None,
) -> Prepared:
    """Open or build the archive, put the cache around it, and give the loader's arguments.

    Args:
        dataset: The user's dataset.
        config: The configuration.
        archive_root: Folder of archives; needed for every archive but plain files.
        cache_root: Folder of caches that keep files.
        limit_bytes: Most bytes of the cache; None is what the machine has available.
        device: Device of a cache on it; None is the present accelerator.
        build: Whether a missing archive is built; else it is an `ArchiveError`.
        build_workers: Processes that build it; 0 is this one.
        archive_limit_bytes: Most bytes of all archives together; the least recently used make room.
        kept_archives: Archives that never make room, as `<fingerprint>/<format>-<form>`.
        progress: Told how many samples of the archive are stored.

    Raises:
        SpecError: The configuration names a decoder that is not offered, or a folder is missing.
        ArchiveError: The archive cannot be used; the caller decides what instead.
        CapacityError: Archive or cache does not fit.
        MissingExtraError: A package that the configuration needs is not installed.
        RandomSamplesError: Random samples would be stored.
    """
    archive = None
    decoded_by = current = with_decoder(dataset, config.decoder) if config.decoder else dataset
    if config.archive != "files":
        if archive_root is None:
            raise SpecError(f"archive {config.archive!r} needs a folder of archives, got archive_root=None")
        archive = open_or_build(
            current,
            config,
            archive_root,
            build=build,
            progress=progress,
            workers=build_workers,
            limit_bytes=archive_limit_bytes,
            keep=kept_archives,
        )
        current = archive.dataset
        if config.order == "streaming":
            current = StreamedArchive(
                decoded_by, archive.reader, encoded=stored_form(config) == "encoded", hold=archive.hold
            )
    if config.cache != "none":
        current = CACHE_MODES[config.cache].wrap(
            current, fraction=config.cache_fraction, directory=cache_root, limit_bytes=limit_bytes, device=device
        )
    arguments = config.dataloader_arguments()
    if isinstance(current, WrappedDataset):
        arguments["collate_fn"] = collate_whole
    cache = current if isinstance(current, CachedDataset) else None
    return Prepared(dataset=current, arguments=arguments, archive=archive, cache=cache)
