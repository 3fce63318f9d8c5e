"""Errors that say which batch they are about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from autotune.errors import DatasetError, SpecError


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put the place before the message of an error that a batch leads to; kinds that carry more stay as they are."""
    try:
        yield
    except (DatasetError, SpecError) as error:
        if type(error) not in (DatasetError, SpecError):
            raise
        raise type(error)(f"{where}: {error}") from error


__all__ = ["located"]
