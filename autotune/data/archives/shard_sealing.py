"""Finished shards made one archive, and a damaged archive taken apart again into the shards that are whole."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from autotune.data.archives._base import MANIFEST_NAME, Manifest, StoredFile, finish_manifest, read_manifest, write_file
from autotune.data.archives.checking import CHECKED_NAME
from autotune.data.archives.shard_folder import (
    PLAN_NAME,
    FinishedShard,
    ShardFolder,
    WrittenShard,
    sha256_of,
    write_whole,
)
from autotune.data.archives.shard_plan import plan_in
from autotune.data.archives.tar import INDEX_NAME
from autotune.data.archives.tar_index import TarIndex
from autotune.data.archives.tar_index_parts import joined, of_file
from autotune.errors import ArchiveDamagedError, ArchiveError, ArchiveStaleError, SpecError

_REPAIRED_NAME = "repaired.json"
"""The manifest of an archive of which damaged shards are built again."""


def sealed(source: Dataset[Any], folder: ShardFolder) -> Manifest:
    """Write index and manifest of shards that are all finished, and remove what was noted beside them.

    Raises:
        ArchiveStaleError: A shard that was built again is not what it had been.
        ArchiveDamagedError: A note was damaged since it was written; its shard counts as missing now.
        FileNotFoundError: The folder is gone, as another builder has published it.
    """
    plan, directory = folder.plan, folder.directory
    index = joined([folder.index_of(number) for number in range(plan.shards)])
    files = {folder.tar(number).name: shard.tar for number, shard in finished_shards(folder).items()}
    _check_repaired(directory, files)
    files[INDEX_NAME] = write_file(directory, INDEX_NAME, index.to_bytes())
    form = (plan.format, plan.stored)
    manifest = finish_manifest(source, directory, form=form, files=files, shard_samples=plan.shard_samples)
    # The plan goes first: without it the manifest is what counts (`reopen`), whatever else is left.
    (directory / PLAN_NAME).unlink(missing_ok=True)
    for path in directory.iterdir():
        if path.name not in files and path.name != MANIFEST_NAME:
            with suppress(OSError):  # NFS renames a plan that builders hold to `.nfs...`, which goes when they let go
                path.unlink()
    return manifest


def finished_shards(folder: ShardFolder) -> dict[int, FinishedShard]:
    """Give what is noted of the finished shards, by number."""
    found = {number: folder.finished(number) for number in range(folder.plan.shards)}
    return {number: shard for number, shard in found.items() if shard is not None}


def before_repair(directory: Path) -> Manifest | None:
    """Give the manifest of a damaged archive whose shards are gone on with; None where there was none.

    Raises:
        ArchiveStaleError: It cannot be read, so that nobody knows what its shards have to be.
    """
    path = directory / _REPAIRED_NAME
    try:
        return Manifest.from_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except SpecError as error:
        raise ArchiveStaleError(
            f"{path}, by which shards of a damaged archive are compared, cannot be read ({error}); nothing of them is "
            "kept: build the archive again"
        ) from error


def reopen(directory: Path, *, refused: bool) -> bool:
    """Turn an archive into a folder of shards, of which those with the bytes of the manifest count as finished.

    Args:
        directory: The archive's folder, which is out of sight already.
        refused: Whether the archive could not be used. If all its bytes are as they were stored, it is not
            damaged but of another source, and no shard of it may be used.

    Returns:
        Whether there is anything to go on with.
    """
    try:
        manifest = read_manifest(directory)
        folder = ShardFolder(directory, plan_in(manifest))
    except ArchiveError:
        return False
    index, whole = _whole_index(directory, manifest), []
    for number in range(folder.plan.shards) if index is not None else ():
        path = folder.tar(number)
        entry = manifest.files.get(path.name)
        with suppress(OSError):
            if entry is not None and sha256_of(path) == entry.sha256:
                whole.append((path, number, entry))
    if index is None or (refused and len(whole) == folder.plan.shards):
        return False
    for path, number, entry in whole:
        folder.finish(WrittenShard(number, path, entry, of_file(index, number)))
    write_whole(directory, _REPAIRED_NAME, manifest.to_json().encode())
    write_whole(directory, PLAN_NAME, folder.plan.to_json().encode())
    for name in (MANIFEST_NAME, INDEX_NAME, CHECKED_NAME):
        (directory / name).unlink(missing_ok=True)
    return True


def _whole_index(directory: Path, manifest: Manifest) -> TarIndex | None:
    path = directory / INDEX_NAME
    with suppress(OSError, KeyError, ArchiveDamagedError):
        if sha256_of(path) == manifest.files[INDEX_NAME].sha256:
            return TarIndex.from_file(path)
    return None


def _check_repaired(directory: Path, files: dict[str, StoredFile]) -> None:
    """Refuse shards beside older ones where one that was built again differs from what it had been."""
    before = before_repair(directory)
    if before is None:
        return
    changed = [name for name, entry in files.items() if before.files.get(name, entry) != entry]
    if changed:
        shutil.rmtree(directory, ignore_errors=True)
        raise ArchiveStaleError(
            f"{', '.join(changed)} of a damaged archive, built again, differ from what had been stored, although files "
            "and settings of the source look unchanged; nothing of it is kept: build the archive again"
        )
