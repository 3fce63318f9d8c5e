"""Whether an archive still holds the bytes that were stored."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from autotune.data.archives._base import Manifest, read_manifest
from autotune.errors import ArchiveDamagedError
from autotune.units import MIB

_logger = logging.getLogger(__name__)

CHECKED_NAME = "checked.json"
"""Sizes, times and inodes that the files had when their checksums were last compared."""
_READ_BYTES = 8 * MIB

Stamps = dict[str, list[int]]


def verify(directory: Path, *, full: bool = False, progress: Callable[[int, int], None] | None = None) -> Manifest:
    """Check an archive against its manifest and give it.

    Sizes are checked always. Bytes are read and hashed with `full`, and whenever a file was touched
    since they last were: so a change that the file system saw is found before the archive is used.

    Args:
        directory: The archive.
        full: Whether to read every byte although nothing was touched.
        progress: Told how many bytes were read and how many there are.

    Raises:
        ArchiveMissingError: There is no archive.
        ArchiveDamagedError: A file is missing or has other bytes than were stored.
    """
    manifest = read_manifest(directory)
    stamps = check_sizes(directory, manifest)
    if full or read_stamps(directory) != stamps:
        done = 0
        for name, entry in manifest.files.items():
            try:
                found = _sha256(directory / name, done, manifest.size_bytes, progress)
            except OSError as error:
                raise damaged(directory, f"{name} cannot be read: {error}") from error
            if found != entry.sha256:
                raise damaged(directory, f"the bytes of {name} do not match their checksum")
            done += entry.size_bytes
        write_stamps(directory, stamps)
    return manifest


def check_sizes(directory: Path, manifest: Manifest) -> Stamps:
    """Compare the size of every file and give its stamps.

    Raises:
        ArchiveDamagedError: A file is missing or has another size.
    """
    stamps = {}
    for name, entry in manifest.files.items():
        try:
            stamps[name] = _stamp(directory / name)
        except OSError as error:
            raise damaged(directory, f"{name} is missing: {error}") from error
        if stamps[name][0] != entry.size_bytes:
            raise damaged(directory, f"{name} must have {entry.size_bytes} bytes, got {stamps[name][0]}")
    return stamps


def damaged(directory: Path, what: str) -> ArchiveDamagedError:
    """Say what is wrong with an archive, and the way out."""
    return ArchiveDamagedError(f"the archive {directory} is damaged: {what}; build it again")


def read_stamps(directory: Path) -> Any:
    """Give the stamps of the last comparison; None where there was none."""
    try:
        return json.loads((directory / CHECKED_NAME).read_bytes())
    except (OSError, ValueError):
        return None


def write_stamps(directory: Path, stamps: Stamps) -> None:
    """Note when files were checked; on a read-only disk they are checked each time instead."""
    temporary = directory / f"{CHECKED_NAME}.{os.getpid()}"
    try:
        temporary.write_text(json.dumps(stamps))
        temporary.replace(directory / CHECKED_NAME)
    except OSError as error:
        _logger.debug("cannot note the check of %s: %s", directory, error)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _stamp(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ino]


def _sha256(path: Path, done: int, total: int, progress: Callable[[int, int], None] | None) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
    return digest.hexdigest()
