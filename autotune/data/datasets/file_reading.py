"""Files as bytes, at most so many of them, and errors that name the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from autotune.errors import SampleError
from autotune.units import format_bytes

MAX_FILE_BYTES = 1024**3
"""A file may have any size; nothing above this is read, where a format allows no more."""


def file_bytes(path: str, *, kind: str = "file", max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read a whole file.

    Args:
        path: The file.
        kind: What it is, for errors.
        max_bytes: Most bytes that are read.

    Raises:
        SampleError: It is larger, or cannot be read.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # paths come as text from arrays
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes > max_bytes:
                raise SampleError(
                    f"the file has {format_bytes(size_bytes)}, and at most {format_bytes(max_bytes)} are read", path
                )
            return file.read()
    except OSError as error:
        raise SampleError(f"the {kind} cannot be read: {error}", path) from error


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Give errors of samples the path of the file behind them, where they know none."""
    try:
        yield
    except SampleError as error:
        if error.path is not None:
            raise
        raise SampleError(error.message, path) from error


__all__ = ["MAX_FILE_BYTES", "file_bytes", "naming"]
