"""What lies in the folder of archives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Dataset, IterableDataset

from autotune.data.archives._base import MANIFEST_NAME, Manifest, read_manifest
from autotune.data.archives.checking import check_sizes, read_stamps
from autotune.data.archives.holding import is_held, used_at
from autotune.data.fingerprint import source_fingerprint
from autotune.errors import ArchiveError, AutotuneError, SpecError
from autotune.spec.base import Value

State = Literal["ok", "damaged", "unknown"]

_SHORT = 8

BUILDING = ".building-"
REMOVING = ".removing-"
"""What marks folders beside the archives that are not archives yet, or no more."""
SHARDS = f"{BUILDING}shards"
"""What marks those in which shards are built, which a later builder goes on with."""


class ArchiveEntry(Value):
    """One archive as the folder shows it; no stored byte is read for it.

    Attributes:
        name: `<fingerprint>/<format>-<form>`.
        format: Format, as the manifest or else the folder's name has it.
        stored: Form in which samples are stored.
        count: Number of samples; None where the manifest cannot be read.
        size_bytes: Bytes on disk.
        type_name: Class of the dataset.
        dataset: Digest of what is known of the dataset, the same for a changed source.
        created_at: When it was built; None where the manifest cannot be read.
        used_at: When it was opened last.
        in_use: Whether a process has it open.
        state: `ok` where all is as it was when checksums were last compared, `damaged` where a file is missing
            or has another size, `unknown` where a file was touched since: opening it will compare checksums.
    """

    name: str
    format: str
    stored: str
    count: int | None = None
    size_bytes: int = 0
    type_name: str = ""
    dataset: str = ""
    created_at: datetime | None = None
    used_at: datetime
    in_use: bool = False
    state: State = "ok"

    @property
    def short_name(self) -> str:
        """The name with as much of the fingerprint as tells it from others."""
        fingerprint, _, form = self.name.partition("/")
        return f"{fingerprint[:_SHORT]}/{form}"


def list_archives(root: Path) -> tuple[ArchiveEntry, ...]:
    """List the archives of a folder, those used last first."""
    entries = [_entry(root, directory) for directory in _directories(root)]
    return tuple(sorted(entries, key=lambda entry: (entry.used_at, entry.name), reverse=True))


def matching(entries: Iterable[ArchiveEntry], word: str) -> list[ArchiveEntry]:
    """Give the archives of a name, of which the fingerprint may be shortened and the form left out.

    Raises:
        SpecError: There is none.
    """
    known = list(entries)
    head, _, form = word.partition("/")
    found = [
        entry for entry in known if entry.name.startswith(head) and form in ("", entry.name.partition("/")[2]) and word
    ]
    if not found:
        names = ", ".join(entry.name for entry in known) or "none yet"
        raise SpecError(f"no archive has the name {word!r}, known are: {names}")
    return found


def archive_name(directory: Path) -> str:
    """Give the name that an archive goes by: `<fingerprint>/<format>-<form>`."""
    return f"{directory.parent.name}/{directory.name}"


def built_forms(dataset: Dataset[Any], root: Path) -> frozenset[str]:
    """Name the archives of exactly this dataset as `<format>-<form>`; nothing in them is checked."""
    fingerprint = None
    if not isinstance(dataset, IterableDataset):
        with suppress(AutotuneError):
            fingerprint = source_fingerprint(dataset)
    if fingerprint is None:
        return frozenset()
    return frozenset(directory.name for directory in _directories(root, fingerprint))


def unfinished(root: Path) -> Iterator[tuple[Path, Path]]:
    """Give the folders of builders and removers with the archive each belongs to, whoever made them living or not."""
    for mark in (BUILDING, REMOVING):
        for folder in sorted(root.glob(f"*/*{mark}*")):
            yield folder, folder.with_name(folder.name.partition(mark)[0])


def tree_bytes(folder: Path) -> int:
    """Add up the bytes that the files of a folder take on disk, as far as they are there."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _directories(root: Path, fingerprint: str = "*") -> list[Path]:
    found = (path.parent for path in root.glob(f"{fingerprint}/*/{MANIFEST_NAME}"))
    return sorted(path for path in found if BUILDING not in path.name and REMOVING not in path.name)


def _entry(root: Path, directory: Path) -> ArchiveEntry:
    name = directory.relative_to(root).as_posix()
    used = datetime.fromtimestamp(used_at(directory), UTC)
    try:
        manifest = read_manifest(directory)
    except ArchiveError:
        form, _, stored = directory.name.rpartition("-")
        return ArchiveEntry(
            name=name, format=form, stored=stored, size_bytes=tree_bytes(directory), used_at=used,
            in_use=is_held(directory / MANIFEST_NAME), state="damaged",
        )  # fmt: skip
    return ArchiveEntry(
        name=name,
        format=manifest.format,
        stored=manifest.stored,
        count=manifest.count,
        size_bytes=manifest.size_bytes,
        type_name=manifest.type_name,
        dataset=manifest.dataset,
        created_at=manifest.created_at,
        used_at=used,
        in_use=is_held(directory / MANIFEST_NAME),
        state=_state(directory, manifest),
    )


def _state(directory: Path, manifest: Manifest) -> State:
    try:
        stamps = check_sizes(directory, manifest)
    except ArchiveError:
        return "damaged"
    return "ok" if read_stamps(directory) == stamps else "unknown"
