"""The folder of archives: one is found there, built where it may be, checked and opened."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from autotune.data.archives import FORMATS
from autotune.data.archives._base import MANIFEST_NAME, Manifest, Progress, dataset_key, read_manifest, sized
from autotune.data.archives.checking import damaged, verify
from autotune.data.archives.holding import Hold, touch_used
from autotune.data.archives.listing import archive_name
from autotune.data.archives.publishing import Job, build_once
from autotune.data.archives.shard_plan import Sharding, check_sharded
from autotune.data.archives.shard_publishing import build_together
from autotune.data.decoders import with_own_decoder
from autotune.data.facts import samples_equal
from autotune.data.fingerprint import source_fingerprint, why_unrecognisable
from autotune.data.randomness import probe_places
from autotune.data.stages import apart, base_sample
from autotune.data.wrapped import ArchivedDataset
from autotune.errors import ArchiveDamagedError, ArchiveError, ArchiveMissingError, ArchiveStaleError, SpecError
from autotune.spec import STORED_FORMS, LoaderConfig
from autotune.spec.config import SHARDED_FORMATS, StoredForm

__all__ = ["OpenedArchive", "open_or_build", "place_of_archive", "stored_form", "verify"]

_logger = logging.getLogger(__name__)

_UNUSABLE = (ArchiveMissingError, ArchiveStaleError, ArchiveDamagedError)
_COMPARED = 3
"""Samples that are read again from the source whenever an archive is opened."""


@dataclass(frozen=True, kw_only=True)
class OpenedArchive:
    """An archive that was found or built, and checked.

    Attributes:
        dataset: The dataset over the archive; the source itself for plain files.
        reader: What the format opened, inside `dataset`; None for plain files.
        hold: Keeps the archive from being removed while it lives; a dataset over `reader` has to have it.
        manifest: What the archive holds; None for plain files.
        build_s: Seconds that building took; 0 where the archive was there.
        size_bytes: Bytes on disk.
        directory: Where it lies; None for plain files.
    """

    dataset: Dataset[Any]
    reader: Dataset[Any] | None = None
    hold: Hold | None = None
    manifest: Manifest | None = None
    build_s: float = 0.0
    size_bytes: int = 0
    directory: Path | None = None


def open_or_build(
    dataset: Dataset[Any],
    config: LoaderConfig,
    root: Path,
    *,
    build: bool = True,
    progress: Progress | None = None,
    workers: int = 0,
    limit_bytes: int | None = None,
    keep: Collection[str] = (),
    sharding: Sharding | None = None,
) -> OpenedArchive:
    """Open the archive that a configuration names, built first where it is missing, stale or damaged.

    It cannot be removed by other processes while the opened dataset lives.

    Args:
        dataset: The source.
        config: Names format and stored form.
        root: Folder of all archives; this one lies in `<fingerprint>/<format>-<stored>/`.
        build: Whether it may be built.
        progress: Told how many samples are stored.
        workers: Processes that read samples for a build; 0 is this one.
        limit_bytes: Most bytes of all archives together; for a build, those used least recently are removed.
        keep: Archives that are never removed, as `<fingerprint>/<format>-<form>`.
        sharding: How this builder takes part in building shards, where the format has them; None does all that
            nobody else has in hand.

    Raises:
        ArchiveError: The dataset cannot be archived.
        ArchiveMissingError: It is missing and not to be built.
        ArchiveStaleError: The source changed since the archive was built, or while it was.
        ArchiveDamagedError: Stored bytes fail their check.
        CapacityError: The disk, or the limit, has too little room.
        RandomSamplesError: The dataset's samples are random.
        SpecError: There are shards of another size than is asked for, or the format has none.
    """
    if config.archive == "files":
        return OpenedArchive(dataset=dataset)
    if sharding is not None and sharding.shard_samples is not None:
        check_sharded(config.archive)
    stored, directory = place_of_archive(dataset, config, root)
    # Samples are probed and stored from copies, so that the caller's dataset opens no file before its workers start.
    source = apart(dataset)
    found = _found(dataset, source, directory, may_build=build)
    if found is not None:
        check_shards(found.manifest, directory, sharding)
        return found
    job = Job(
        source=apart(stored), directory=directory, name=config.archive, stored=stored_form(config), progress=progress,
        workers=workers, limit_bytes=limit_bytes, keep=keep, sharding=sharding or Sharding(),
    )  # fmt: skip
    build_archive = build_together if config.archive in SHARDED_FORMATS else build_once
    made = build_archive(
        job,
        lambda: _usable(dataset, source, directory),
        lambda build_s: _opened(dataset, source, directory, build_s=build_s),
    )
    check_shards(made.manifest, directory, sharding)
    return made


def stored_form(config: LoaderConfig) -> StoredForm:
    """Give the form in which a configuration stores samples: its own, else the format's last."""
    return config.stored or STORED_FORMS[config.archive][-1]


def place_of_archive(dataset: Dataset[Any], config: LoaderConfig, root: Path) -> tuple[Dataset[Any], Path]:
    """Give the dataset whose samples an archive stores, and the archive's folder, whether it is there or not.

    Raises:
        ArchiveError: The dataset cannot be archived.
    """
    form = stored_form(config)
    # Original bytes are the same whatever decodes them, so all decoders share an archive.
    stored = with_own_decoder(dataset) if form == "encoded" else dataset
    return stored, root / _fingerprint(stored) / f"{config.archive}-{form}"


def check_shards(manifest: Manifest | None, directory: Path, sharding: Sharding | None) -> None:
    """Refuse an archive whose shards have another size than is asked for.

    Raises:
        SpecError: They have.
    """
    asked = sharding and sharding.shard_samples
    if asked and manifest is not None and min(asked, manifest.count) != manifest.shard_samples:
        raise SpecError(
            f"the archive {directory} has shards of {manifest.shard_samples} samples, got {asked}; ask for no "
            "size to use it, or remove it first"
        )


def _found(dataset: Dataset[Any], source: Dataset[Any], directory: Path, *, may_build: bool) -> OpenedArchive | None:
    """Open an archive that is there and can be used; None where a new one is to be built."""
    if not (directory / MANIFEST_NAME).exists():
        if may_build:
            return None
        raise _missing(dataset, directory)
    try:
        return _opened(dataset, source, directory)
    except _UNUSABLE as error:
        if not may_build:
            raise
        _logger.warning("building an archive anew: %s", error)
        return None


def _usable(dataset: Dataset[Any], source: Dataset[Any], directory: Path) -> OpenedArchive | None:
    try:
        return _opened(dataset, source, directory)
    except _UNUSABLE:
        return None


def _opened(dataset: Dataset[Any], source: Dataset[Any], directory: Path, *, build_s: float = 0.0) -> OpenedArchive:
    hold = Hold(directory)
    manifest = verify(directory)
    name = f"{manifest.fingerprint}/{manifest.format}-{manifest.stored}"
    if name != archive_name(directory):
        raise damaged(directory, f"its manifest is that of {name}")
    reader = FORMATS[manifest.format].open(directory)
    encoded = manifest.stored == "encoded"
    _compare_some(source, ArchivedDataset(source, reader, encoded=encoded), directory)
    if not hold.current:
        raise ArchiveMissingError(f"the archive {directory} was removed while it was opened; open it again")
    touch_used(directory)
    return OpenedArchive(
        dataset=ArchivedDataset(dataset, reader, encoded=encoded, hold=hold),
        reader=reader,
        hold=hold,
        manifest=manifest,
        build_s=build_s,
        size_bytes=manifest.size_bytes,
        directory=directory,
    )


def _fingerprint(dataset: Dataset[Any]) -> str:
    if isinstance(dataset, IterableDataset):
        raise ArchiveError(
            f"an iterable dataset has no index to archive by, got {type(dataset).__qualname__}; use archive 'files'"
        )
    fingerprint = source_fingerprint(dataset)
    if fingerprint is None:
        raise ArchiveError(
            f"a change of the source could not be noticed, so nothing is stored: {why_unrecognisable(dataset)}, or use "
            "archive 'files'"
        )
    return fingerprint


def _compare_some(source: Dataset[Any], opened: ArchivedDataset, directory: Path) -> None:
    """Read a few samples again from the source and compare them bit for bit."""
    count = sized(source)
    if len(opened._reader) != count:  # type: ignore[arg-type]  # noqa: SLF001  # readers are map-style
        raise ArchiveStaleError(f"{directory} does not hold the {count:,} samples of the source; build it again")
    seed = int.from_bytes(os.urandom(4), "little")
    for index in probe_places(count, _COMPARED, seed=seed):
        if not samples_equal(opened.base_sample(index), base_sample(source, index)):
            raise ArchiveStaleError(
                f"sample {index} of {directory} differs from its source, although files and settings look unchanged; "
                "build it again"
            )


def _missing(dataset: Dataset[Any], directory: Path) -> ArchiveError:
    """Say whether the archive was never built, or belongs to an earlier state of the source."""
    key = dataset_key(dataset)
    for other in directory.parent.parent.glob(f"*/{directory.name}/{MANIFEST_NAME}"):
        with suppress(ArchiveError):
            found = read_manifest(other.parent)
            if found.dataset == key:
                return ArchiveStaleError(
                    f"the source has changed since its archive {directory.name} was built on "
                    f"{found.created_at:%Y-%m-%d %H:%M}; build it again"
                )
    return ArchiveMissingError(
        f"there is no archive {archive_name(directory)} in {directory.parent.parent}; build it first"
    )
