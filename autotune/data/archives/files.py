"""Plain files: no archive at all, the dataset reads what it always read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from autotune.data.archives._base import Manifest, Progress, check_form, finish_manifest
from autotune.errors import ArchiveError
from autotune.spec.config import StoredForm


class FilesFormat:
    """The plain dataset. It stores nothing: its manifest lists no file, and there is nothing to open."""

    def build(
        self,
        source: Dataset[Any],
        directory: Path,
        *,
        stored: StoredForm = "encoded",
        progress: Progress | None = None,
        workers: int = 0,  # noqa: ARG002
    ) -> Manifest:
        """Write a manifest without files; no sample is read."""
        check_form("files", stored)
        manifest = finish_manifest(source, directory, form=("files", stored), files={})
        if progress is not None:
            progress(manifest.count, manifest.count)
        return manifest

    def open(self, directory: Path) -> Dataset[Any]:
        """Refuse: plain files are read by the dataset itself."""
        raise ArchiveError(f"archive 'files' stores nothing in {directory}; use the dataset itself")
