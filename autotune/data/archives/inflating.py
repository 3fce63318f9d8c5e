"""Compressed tars from elsewhere, inflated once into a folder of caches."""

from __future__ import annotations

import atexit
import errno
import hashlib
import os
import shutil
from pathlib import Path

from filelock import FileLock

from autotune.data.archives.block_stream import inflate_pieces
from autotune.data.archives.compression import CODECS
from autotune.data.archives.tar_scan import TarLimits
from autotune.errors import ArchiveError, CapacityError
from autotune.home import home_folder
from autotune.units import format_bytes

_FREE_SHARE = 0.9
_MAGICS = {b"\x1f\x8b": "gz", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zst"}
_BUILDING = ".building"
_held: set[Path] = set()
"""Folders of caches that this process keeps from being removed as long as it lives: workers open copies later on."""


def inflated_folder(given: str | os.PathLike[str] | None) -> Path:
    """Give the folder for inflated copies: a caller's own, else the one beside the disk caches.

    The latter counts as one of those. It goes when they have too little room, and no process has used it.
    """
    if given is not None:
        return Path(given)
    from autotune.data.caches.folders import FolderLock  # caches stand on archives

    folder = home_folder() / "cache" / "tars"
    if folder not in _held:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder)
        lock.share()
        atexit.register(lock.release)
        _held.add(folder)
    return folder


def compression_of(path: Path) -> str | None:
    """Tell by a file's first bytes how it is compressed; None is a plain tar.

    Raises:
        ArchiveError: It cannot be read, or is compressed in another way.
    """
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error}") from error
    if start.startswith(b"BZh"):
        raise ArchiveError(f"{path} is compressed by bzip2, and only gz, xz and zst are read; compress it anew")
    return next((name for magic, name in _MAGICS.items() if start.startswith(magic)), None)


def inflated_copy(path: Path, compression: str, folder: Path, limits: TarLimits) -> Path:
    """Give the plain form of a compressed file, inflated where that has not been done.

    It is written under a name of its own and renamed, so that it is whole or absent; the name holds path,
    size and time of the source, so that a changed source is inflated anew.

    Raises:
        ArchiveError: The file is damaged, or inflates beyond the limits.
        CapacityError: The disk is too small.
    """
    facts = path.stat()
    whole = f"{path.absolute()}\0{facts.st_size}\0{facts.st_mtime_ns}"
    target = folder / f"{hashlib.sha256(whole.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.tar"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.exists():
            return target
        for leftover in folder.glob(f"{target.name}{_BUILDING}-*"):
            leftover.unlink(missing_ok=True)
        building = target.with_name(f"{target.name}{_BUILDING}-{os.getpid()}")
        try:
            _inflate(path, building, compression, limits)
            building.replace(target)
        finally:
            building.unlink(missing_ok=True)
    return target


def _inflate(path: Path, building: Path, compression: str, limits: TarLimits) -> None:
    free = shutil.disk_usage(building.parent).free
    limit = int(free * _FREE_SHARE) if limits.inflated_bytes is None else limits.inflated_bytes
    done = 0
    try:
        with path.open("rb") as source, building.open("wb") as target:
            for piece in inflate_pieces(source, CODECS[compression]):
                done += len(piece.data)
                limits.check(str(path), piece.stored_end, done)
                if done > limit:
                    raise _too_large(path, building.parent, limit, limits)
                target.write(piece.data)
            target.flush()
            os.fsync(target.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CapacityError(f"the disk of {building.parent} is full; free some space", free + 1, free) from error
        raise


def _too_large(path: Path, folder: Path, limit: int, limits: TarLimits) -> ArchiveError | CapacityError:
    text = f"{path} inflates to more than {format_bytes(limit)}"
    if limits.inflated_bytes is None:
        return CapacityError(f"{text}, nine tenths of what {folder} has free; free some space", limit + 1, limit)
    return ArchiveError(f"{text}; raise limit_bytes if the archive may be trusted")
