"""The folder of archives: found, built, checked and published there."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch.utils.data import Dataset, IterableDataset

from autotune.data.archives import FORMATS
from autotune.data.archives._base import MANIFEST_NAME, Manifest, Progress, dataset_key, read_manifest, sized
from autotune.data.facts import sample_nbytes, samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.data.randomness import probe_places, refuse_random, refuse_unlike_stages
from autotune.data.stages import base_sample, is_staged, read_stage
from autotune.data.wrapped import ArchivedDataset
from autotune.errors import ArchiveDamagedError, ArchiveError, ArchiveStaleError, CapacityError
from autotune.spec import STORED_FORMS, LoaderConfig
from autotune.spec.config import StoredForm
from autotune.units import format_bytes

_logger = logging.getLogger(__name__)

_CHECKED_NAME = "checked.json"
_BUILDING = ".building"
_OVERHEAD_SHARE = 1.05
"""Headers and indexes, on top of the samples, for the disk check."""
_MEMBER_OVERHEAD_BYTES = 4096
"""Headers and padding of the members of one sample in a tar, at most."""


@dataclass(frozen=True, kw_only=True)
class OpenedArchive:
    """An archive that was found or built, and checked.

    Attributes:
        dataset: The dataset over the archive; the source itself for plain files.
        manifest: What the archive holds; None for plain files.
        build_s: Seconds that building took; 0 where the archive was there.
        size_bytes: Bytes on disk.
        directory: Where it lies; None for plain files.
    """

    dataset: Dataset[Any]
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
) -> OpenedArchive:
    """Open the archive that a configuration names, built first where it is missing.

    Args:
        dataset: The source.
        config: Names format and stored form.
        root: Folder of all archives; this one lies in `<fingerprint>/<format>-<stored>/`.
        build: Whether a missing archive is built.
        progress: Told how many samples are stored.

    Raises:
        ArchiveError: The dataset cannot be archived, or the archive is missing and not to be built.
        ArchiveStaleError: The source changed since the archive was built, or while it was.
        ArchiveDamagedError: Stored bytes fail their check.
        CapacityError: The disk has too little space.
        RandomSamplesError: The dataset's samples are random.
    """
    if config.archive == "files":
        return OpenedArchive(dataset=dataset)
    form = stored_form(config)
    fingerprint = _fingerprint(dataset)
    directory = root / fingerprint / f"{config.archive}-{form}"
    build_s = 0.0
    if not (directory / MANIFEST_NAME).exists():
        if not build:
            raise _missing(dataset, directory)
        build_s = _build_once(dataset, directory, (config.archive, form), progress)
    manifest = verify(directory)
    reader = FORMATS[config.archive].open(directory)
    opened = ArchivedDataset(dataset, reader, encoded=form == "encoded")
    _compare_some(dataset, opened, directory)
    return OpenedArchive(
        dataset=opened, manifest=manifest, build_s=build_s, size_bytes=manifest.size_bytes, directory=directory
    )


def stored_form(config: LoaderConfig) -> StoredForm:
    """Give the form in which a configuration stores samples: its own, else the format's last."""
    return config.stored or STORED_FORMS[config.archive][-1]


def verify(directory: Path, *, full: bool = False) -> Manifest:
    """Check an archive against its manifest and give it.

    Sizes are checked always. Bytes are read and hashed with `full`, and whenever a file was touched
    since they last were: so a change that the file system saw is found before the archive is used.

    Raises:
        ArchiveError: There is no archive.
        ArchiveDamagedError: A file is missing or has other bytes than were stored.
    """
    manifest = read_manifest(directory)
    stamps = {}
    for name, entry in manifest.files.items():
        try:
            facts = (directory / name).stat()
        except OSError as error:
            raise _damaged(directory, f"{name} is missing: {error}") from error
        if facts.st_size != entry.size_bytes:
            raise _damaged(directory, f"{name} must have {entry.size_bytes} bytes, got {facts.st_size}")
        stamps[name] = [facts.st_size, facts.st_mtime_ns, facts.st_ino]
    if full or _read_stamps(directory) != stamps:
        for name, entry in manifest.files.items():
            if _sha256(directory / name) != entry.sha256:
                raise _damaged(directory, f"the bytes of {name} do not match their checksum")
        _write_stamps(directory, stamps)
    return manifest


def _fingerprint(dataset: Dataset[Any]) -> str:
    if isinstance(dataset, IterableDataset):
        raise ArchiveError(
            f"an iterable dataset has no index to archive by, got {type(dataset).__qualname__}; use archive 'files'"
        )
    fingerprint = source_fingerprint(dataset)
    if fingerprint is None:
        raise ArchiveError(
            f"{type(dataset).__qualname__} has neither fingerprint() nor source_paths(), so a change of its source "
            "could not be noticed and nothing is stored; add one of them, or use archive 'files'"
        )
    return fingerprint


def _build_once(
    dataset: Dataset[Any], directory: Path, form: tuple[str, StoredForm], progress: Progress | None
) -> float:
    """Build under a lock, so that a second builder waits and finds the archive; give the seconds it took."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{directory}.lock"):
        if (directory / MANIFEST_NAME).exists():
            return 0.0
        _remove_leftovers(directory)
        refuse_random(dataset, "archived")
        refuse_unlike_stages(dataset)
        _check_free_disk(dataset, directory.parent, form)
        started = time.monotonic()
        building = directory.with_name(f"{directory.name}{_BUILDING}-{os.getpid()}")
        building.mkdir()
        try:
            _build_into(dataset, building, form, progress)
            building.rename(directory)
            _sync_folder(directory.parent)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        return time.monotonic() - started


def _build_into(dataset: Dataset[Any], building: Path, form: tuple[str, StoredForm], progress: Progress | None) -> None:
    before = building.parent.name
    try:
        manifest = FORMATS[form[0]].build(dataset, building, stored=form[1], progress=progress)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(building.parent).free
            raise CapacityError(f"the disk of {building.parent} is full; free some space", free + 1, free) from error
        raise
    if manifest.fingerprint != before:
        raise ArchiveStaleError("the source changed while its archive was built; build it again")
    _write_stamps(building, {name: _stamp(building / name) for name in manifest.files})
    _sync_folder(building)


def _remove_leftovers(directory: Path) -> None:
    """Remove what a killed builder left; the lock says that none is at work."""
    for leftover in directory.parent.glob(f"{directory.name}{_BUILDING}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if directory.exists():
        shutil.rmtree(directory)


def _check_free_disk(dataset: Dataset[Any], folder: Path, form: tuple[str, StoredForm]) -> None:
    count = sized(dataset)
    places = probe_places(count, 8, seed=1)
    sizes = [_stored_bytes(dataset, index, form) for index in places]
    needed = int(sum(sizes) / len(sizes) * count * _OVERHEAD_SHARE)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CapacityError(
            f"an archive {form[0]!r} ({form[1]}) of {count:,} samples needs about {format_bytes(needed)}, and "
            f"{folder} has {format_bytes(free)} free; free some space or use archive 'files'",
            needed,
            free,
        )


def _stored_bytes(dataset: Dataset[Any], index: int, form: tuple[str, StoredForm]) -> int:
    overhead = _MEMBER_OVERHEAD_BYTES if form[0] == "tar" else 0
    if form[1] == "encoded" and is_staged(dataset):
        return overhead + sum(len(part) for part in read_stage(dataset, index))
    return overhead + sample_nbytes(base_sample(dataset, index))


def _compare_some(dataset: Dataset[Any], opened: ArchivedDataset, directory: Path) -> None:
    """Read a few samples again from the source and compare them bit for bit."""
    count = sized(dataset)
    if len(opened._reader) != count:  # type: ignore[arg-type]  # noqa: SLF001  # readers are map-style
        raise ArchiveStaleError(f"{directory} does not hold the {count:,} samples of the source; build it again")
    seed = int.from_bytes(os.urandom(4), "little")
    for index in probe_places(count, 3, seed=seed):
        if not samples_equal(opened.base_sample(index), base_sample(dataset, index)):
            raise ArchiveStaleError(
                f"sample {index} of {directory} differs from its source, although files and settings look unchanged; "
                "remove the archive and build it again"
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
    return ArchiveError(f"there is no archive {directory}; build it first")


def _damaged(directory: Path, what: str) -> ArchiveDamagedError:
    return ArchiveDamagedError(f"the archive {directory} is damaged: {what}; remove it and build it again")


def _stamp(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ino]


def _read_stamps(directory: Path) -> Any:
    try:
        return json.loads((directory / _CHECKED_NAME).read_bytes())
    except (OSError, ValueError):
        return None


def _write_stamps(directory: Path, stamps: dict[str, list[int]]) -> None:
    """Note when files were checked; on a read-only disk they are checked each time instead."""
    temporary = directory / f"{_CHECKED_NAME}.{os.getpid()}"
    try:
        temporary.write_text(json.dumps(stamps))
        temporary.replace(directory / _CHECKED_NAME)
    except OSError as error:
        _logger.debug("cannot note the check of %s: %s", directory, error)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
