"""A page on disk, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from autotune.errors import SpecError


def write_page(page: str, path: Path) -> int:
    """Write a page, replacing what is there only once the new one is whole.

    Args:
        page: The HTML text.
        path: File to write; its folder must be there.

    Returns:
        Size of the file in bytes.

    Raises:
        SpecError: It cannot be written.
    """
    body = page.encode()
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(body)
            Path(temporary).chmod(0o644)  # a report is there to be read; temporary files are not
            Path(temporary).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise SpecError(f"{path} must be a file that can be written, got {error.strerror or error}") from error
    return len(body)
