"""Plain tar with an index of offsets: readable by any tar program, read here at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from autotune.data.archives._base import (
    HashedFile,
    Manifest,
    Progress,
    check_form,
    check_staged,
    finish_manifest,
    read_manifest,
    write_file,
)
from autotune.data.archives.tar_index import IndexBuilder, TarIndex
from autotune.data.archives.tar_reader import TarReader
from autotune.data.archives.tar_writer import end_of_tar, stored_parts, written_blocks
from autotune.spec.config import StoredForm

INDEX_NAME = "samples.index"


class TarFormat:
    """Samples as members of one tar: original bytes (`encoded`), or `.npy` files (`decoded`)."""

    name = "tar"
    compression: str | None = None

    def build(
        self,
        source: Dataset[Any],
        directory: Path,
        *,
        stored: StoredForm = "decoded",
        progress: Progress | None = None,
        workers: int = 0,
    ) -> Manifest:
        """Store every sample of `source` as members of one tar.

        Raises:
            ArchiveError: `encoded` is asked of a dataset without `read` and `decode`, or a sample holds
                what cannot be given back exactly.
        """
        check_form(self.name, stored)
        check_staged(source, stored)
        index = IndexBuilder()
        blocks = written_blocks(
            source, stored_parts(stored), compression=self.compression, workers=workers, progress=progress
        )
        with HashedFile(directory / self._file_name) as file:
            for block, data in blocks:
                index.add(0, file.size_bytes, block)
                file.write(data)
            file.write(end_of_tar(self.compression))
        entries = {
            self._file_name: file.entry,
            INDEX_NAME: write_file(directory, INDEX_NAME, index.finish().to_bytes()),
        }
        return finish_manifest(source, directory, form=(self.name, stored), files=entries)

    def open(self, directory: Path) -> Dataset[Any]:
        """Open the tar at the first access, in each process anew."""
        return FolderReader(directory, (self._file_name,), self.compression)

    @property
    def _file_name(self) -> str:
        return f"samples.{self.name}"


class FolderReader(TarReader):
    """The samples of an archive's folder.

    Args:
        directory: The folder.
        names: Its tars.
        compression: As `TarReader` takes it.
    """

    def __init__(self, directory: Path, names: tuple[str, ...], compression: str | None) -> None:
        files = [directory / name for name in names]
        index = TarIndex.from_file(directory / INDEX_NAME)
        super().__init__(files, index, stored=read_manifest(directory).stored, compression=compression)
        self._place = (directory, names, compression)

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is started anew reads the index itself: it may be large.
        return {"place": self._place}

    def __setstate__(self, state: dict[str, Any]) -> None:
        FolderReader.__init__(self, *state["place"])
