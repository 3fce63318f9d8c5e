"""What every archive format offers, and the manifest that makes an archive whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from pydantic import Field
from torch.utils.data import Dataset, IterableDataset

from autotune.data.facts import dataset_facts
from autotune.data.fingerprint import source_fingerprint
from autotune.data.stages import is_staged
from autotune.errors import ArchiveDamagedError, ArchiveError, ArchiveMissingError, SpecError
from autotune.spec import STORED_FORMS
from autotune.spec.base import Value
from autotune.spec.config import StoredForm

MANIFEST_NAME = "manifest.json"

Progress = Callable[[int, int], None]
"""Called with the number of samples done and of all samples."""


class StoredFile(Value):
    """One file of an archive: its size and the SHA-256 of its bytes."""

    size_bytes: int = Field(ge=0)
    sha256: str


class Manifest(Value):
    """What an archive holds; an archive without one is not an archive.

    Attributes:
        format: Name in `autotune.data.archives.FORMATS`.
        stored: Whether samples are stored as original bytes or as arrays.
        count: Number of samples.
        files: Every file of the archive but this one.
        fingerprint: Fingerprint of the source; None where none can be had.
        dataset: Digest of what is known of the dataset without its length: the same for a changed source.
        type_name: Class of the dataset, for people to read.
        created_at: Time in UTC.
        build_s: Seconds that its build took, for those who find it there later and count what it cost.
        shard_samples: Samples in each shard but the last; None where the format has no shards.
    """

    format: str
    stored: StoredForm
    count: int = Field(ge=1)
    files: Mapping[str, StoredFile] = {}
    fingerprint: str | None = None
    dataset: str = ""
    type_name: str = ""
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    build_s: float = Field(default=0.0, ge=0)
    shard_samples: int | None = Field(default=None, ge=1)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files.values())


class ArchiveFormat(Protocol):
    """One way to store the samples of a map-style dataset in a folder.

    `build` writes into an empty folder with memory bounded by a few samples for each process; it leaves a
    manifest as the last file, and the same bytes whatever the number of processes. `open` gives a dataset
    with the same length and order: of the samples themselves (`decoded`), or of what the dataset's `read`
    gave (`encoded`). What it gives is fresh at each access; no file is held open across a fork; a pickled
    copy opens the folder again. A package that the format needs is imported inside, on first use.
    """

    def build(
        self,
        source: Dataset[Any],
        directory: Path,
        *,
        stored: StoredForm = "decoded",
        progress: Progress | None = None,
        workers: int = 0,
    ) -> Manifest:
        """Store every sample of `source` in `directory`, read by so many processes (0: this one)."""

    def open(self, directory: Path) -> Dataset[Any]:
        """Open what `build` stored."""


class HashedFile:
    """A file that is hashed while it is written and safe on disk when closed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=1024 * 1024)
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""
        self._file.write(data)
        self._hash.update(data)
        self.size_bytes += len(data)

    @property
    def entry(self) -> StoredFile:
        """What the manifest says of this file."""
        return StoredFile(size_bytes=self.size_bytes, sha256=self._hash.hexdigest())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()


def write_file(directory: Path, name: str, data: bytes) -> StoredFile:
    """Write one small file and give its entry for the manifest."""
    with HashedFile(directory / name) as file:
        file.write(data)
    return file.entry


def finished_file(path: Path) -> StoredFile:
    """Make a file that a library wrote safe on disk, and give its entry for the manifest."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return StoredFile(size_bytes=file.tell(), sha256=digest)


def finish_manifest(
    source: Dataset[Any],
    directory: Path,
    *,
    form: tuple[str, StoredForm],
    files: Mapping[str, StoredFile],
    shard_samples: int | None = None,
) -> Manifest:
    """Write the manifest, which makes the folder an archive."""
    manifest = Manifest(
        format=form[0],
        stored=form[1],
        count=sized(source),
        files=files,
        fingerprint=source_fingerprint(source),
        dataset=dataset_key(source),
        type_name=dataset_facts(source).type_name,
        shard_samples=shard_samples,
    )
    write_file(directory, MANIFEST_NAME, manifest.to_json().encode())
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of an archive.

    Raises:
        ArchiveMissingError: There is none.
        ArchiveDamagedError: It cannot be read.
    """
    try:
        return Manifest.from_json((directory / MANIFEST_NAME).read_bytes())
    except FileNotFoundError as error:
        raise ArchiveMissingError(f"{directory} holds no {MANIFEST_NAME}, so it is no archive") from error
    except (OSError, SpecError) as error:
        raise ArchiveDamagedError(f"the manifest of {directory} cannot be read: {error}") from error


def dataset_key(source: Dataset[Any]) -> str:
    """Give digits that stay the same when files are added to the source, removed or changed."""
    return dataset_facts(source).replace(length=None).digest()


def sized(source: Any) -> int:
    """Give the length of a map-style dataset that has samples.

    Raises:
        ArchiveError: It has no length or no samples.
    """
    if not hasattr(source, "__len__") or isinstance(source, IterableDataset):
        raise ArchiveError(
            f"only a dataset with length and index can be archived or cached, got {type(source).__qualname__}; "
            "use archive 'files' and cache 'none'"
        )
    count = len(source)
    if count < 1:
        raise ArchiveError(f"a dataset without samples cannot be archived, got {type(source).__qualname__}")
    return count


def check_form(name: str, stored: str) -> None:
    """Refuse a stored form that the format does not have."""
    if stored not in STORED_FORMS[name]:
        raise SpecError(f"archive {name!r} stores samples {' or '.join(STORED_FORMS[name])}, got stored={stored!r}")


def check_staged(source: Dataset[Any], stored: StoredForm) -> None:
    """Refuse to store original bytes of a dataset that does not tell them apart."""
    if stored == "encoded" and not is_staged(source):
        raise ArchiveError(
            f"stored='encoded' needs a dataset with read(index) and decode(raw), got {type(source).__qualname__}; "
            "use stored='decoded'"
        )
