"""Room for an archive: under the limit and on the disk, before it is built, and errors of a disk that ran full."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from autotune.errors import AutotuneError, CapacityError
from autotune.units import KIB, format_bytes

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOTHING_FREE_BYTES = 64 * KIB
"""Libraries of formats have errors of their own for a full disk; with less than this left it was that."""


@contextmanager
def full_disk_told(root: Path, left: str = "what was written is removed") -> Iterator[None]:
    """Turn whatever error a full disk came to into a `CapacityError`.

    Args:
        root: Folder of all archives.
        left: What becomes of what was written, as part of the message.
    """
    try:
        yield
    except AutotuneError:
        raise
    except Exception as error:
        if _has_errno(error, _FULL) or free_bytes(root) < _NOTHING_FREE_BYTES:
            free = free_bytes(root)
            raise CapacityError(
                f"the disk of {root} ran full while an archive was built, and {left}; free some space, or name "
                "another folder by AUTOTUNE_HOME",
                free + 1,
                free,
            ) from error
        raise


def free_bytes(folder: Path) -> int:
    """Give the free bytes of the disk that a folder is or will be on."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def check_free(root: Path, needed_bytes: int, what: str) -> None:
    """Refuse what the disk cannot hold.

    Raises:
        CapacityError: It cannot; the message names both sizes.
    """
    free = free_bytes(root)
    if needed_bytes > free:
        raise CapacityError(
            f"{what} needs about {format_bytes(needed_bytes)}, and {root} has {format_bytes(free)} free; free some "
            "space or use archive 'files'",
            needed_bytes,
            free,
        )


def _has_errno(error: BaseException | None, numbers: Collection[int]) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in numbers:
            return True
        error = error.__cause__ or error.__context__
    return False
