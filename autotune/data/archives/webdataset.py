"""Shards that the `webdataset` package reads: plain tars, a key for each sample.

They are written here rather than by its `TarWriter`, which works in one process and does not tell where
it put what; its reader takes ours as its own.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.utils.data import Dataset

from autotune.data.archives._base import (
    HashedFile,
    Manifest,
    Progress,
    StoredFile,
    check_form,
    check_staged,
    finish_manifest,
    read_manifest,
    sized,
    write_file,
)
from autotune.data.archives.tar import INDEX_NAME, FolderReader
from autotune.data.archives.tar_index import IndexBuilder, IndexedBlock
from autotune.data.archives.tar_writer import end_of_tar, stored_parts, written_blocks
from autotune.errors import ArchiveError
from autotune.spec.config import StoredForm
from autotune.units import MIB

_SHARD_BYTES_MAX = 256 * MIB
"""What the package's documentation takes for shards on local disks and object stores alike."""
_SHARD_BYTES_MIN = 1 * MIB
_SHARDS_AIMED_AT = 16
"""Shards of a small archive: its reader deals out whole shards to workers and ranks."""


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
        check_form("webdataset", stored)
        check_staged(source, stored)
        blocks = written_blocks(source, stored_parts(stored), workers=workers, progress=progress)
        with _Shards(directory, sized(source)) as shards:
            for block, data in blocks:
                shards.add(block, data)
        entries = shards.files
        entries[INDEX_NAME] = write_file(directory, INDEX_NAME, shards.index.finish().to_bytes())
        return finish_manifest(source, directory, form=("webdataset", stored), files=entries)

    def open(self, directory: Path) -> Dataset[Any]:
        """Open the shards by the index; each is opened at the first access, in each process anew."""
        names = tuple(sorted(name for name in read_manifest(directory).files if name != INDEX_NAME))
        return FolderReader(directory, names, None)


class _Shards:
    """Files that are begun anew whenever one is full."""

    def __init__(self, directory: Path, count: int) -> None:
        self.index = IndexBuilder()
        self.files: dict[str, StoredFile] = {}
        self._directory = directory
        self._count = count
        self._limit_bytes = 0
        self._file: HashedFile | None = None
        self._stack = ExitStack()

    def add(self, block: IndexedBlock, data: bytes | memoryview) -> None:
        if not self._limit_bytes:
            aimed = len(data) * self._count // _SHARDS_AIMED_AT
            self._limit_bytes = max(_SHARD_BYTES_MIN, min(aimed, _SHARD_BYTES_MAX))
        if self._file is not None and self._file.size_bytes + len(data) > self._limit_bytes:
            self._finish()
        if self._file is None:
            self._file = self._stack.enter_context(HashedFile(self._directory / self._name()))
        self.index.add(len(self.files), self._file.size_bytes, block)
        self._file.write(data)

    def _finish(self) -> None:
        if self._file is not None:
            self._file.write(end_of_tar(None))
            self._stack.close()
            self.files[self._name()] = self._file.entry
            self._file = None

    def _name(self) -> str:
        if len(self.files) >= 10**6:
            raise ArchiveError("an archive has a million shards at most; use archive 'tar'")
        return f"shard-{len(self.files):06d}.tar"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish()
        else:
            self._stack.__exit__(kind, error, trace)
