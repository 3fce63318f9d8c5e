"""Values of `diskcache` as plain bytes; imported only where that package is there."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from diskcache.core import MODE_BINARY, MODE_RAW, UNKNOWN, Disk


class PlainDisk(Disk):  # type: ignore[misc]  # the package is untyped
    """Refuses pickles, texts, and files outside of its folder, whatever the database says."""

    def __init__(self, directory: str, **settings: Any) -> None:
        super().__init__(directory, **settings)
        self._written = threading.local()

    def store(self, value: Any, read: Any, key: Any = UNKNOWN) -> Any:
        """Write a value, and remember its file until the database knows it."""
        size, mode, filename, kept = super().store(value, read, key=key)
        self._written.filename = filename
        return size, mode, filename, kept

    def done(self) -> None:
        """Forget the last file: the database knows it."""
        self._written.filename = None

    def undo(self) -> None:
        """Remove the last file, of which the database was not told."""
        filename = getattr(self._written, "filename", None)
        self._written.filename = None
        if filename is not None:
            self.remove(filename)

    def get(self, key: Any, raw: Any) -> Any:
        """Give a key, which is never a pickle."""
        if not raw:
            raise ValueError("a pickled key is refused")
        return super().get(key, raw)

    def fetch(self, mode: int, filename: str | None, value: Any, read: Any) -> Any:
        """Give a value, which is never a pickle."""
        if mode not in (MODE_RAW, MODE_BINARY):
            raise ValueError(f"a value of mode {mode} (4 is pickle) is refused")
        if filename is not None:
            _check_inside(filename)
        return super().fetch(mode, filename, value, read)

    def remove(self, file_path: str) -> None:
        """Remove a file of this folder."""
        with suppress(ValueError):
            _check_inside(file_path)
            super().remove(file_path)

    def _write(self, full_path: str, iterator: Any, mode: str, encoding: str | None = None) -> Any:
        try:
            return super()._write(full_path, iterator, mode, encoding)
        except OSError:
            with suppress(OSError):
                Path(full_path).unlink()  # what was written before the disk was full
            raise


def _check_inside(filename: str) -> None:
    if Path(filename).is_absolute() or ".." in Path(filename).parts:
        raise ValueError(f"a file outside of the cache is refused: {filename!r}")
