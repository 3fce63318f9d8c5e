"""Archives that are one file: a tar that begins and ends with what is needed to read it, and an index beside it.

    __autotune__/archive.json     what the samples are, and the caller's metadata
    members of the samples        in blocks, compressed on their own where the tar is compressed
    __autotune__/index.json       number and structures of samples, SHA-256 of all that stands before

The index beside it (`<name>.index`) spares a scan; without it, or with that of another file, it is rebuilt.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import psutil
from torch.utils.data import Dataset

from autotune.data.archives._base import HashedFile, Progress
from autotune.data.archives.compression import CODECS
from autotune.data.archives.tar_index import NO_LEAVES, IndexBuilder, TarIndex
from autotune.data.archives.tar_writer import TakeParts, append_members, end_of_tar, pack_block, written_blocks
from autotune.errors import ArchiveDamagedError, ArchiveError, SpecError
from autotune.units import MIB

Kind = Literal["decoded", "encoded", "pairs"]

HEADER_NAME = "__autotune__/archive.json"
FOOTER_NAME = "__autotune__/index.json"
VERSION = 1
_INDEX_BYTES_FREE = 64 * MIB


def write_tar_file(
    path: Path,
    source: Dataset[Any],
    parts: TakeParts,
    *,
    kind: Kind,
    compression: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> None:
    """Write every sample into one tar, which is there whole or not at all.

    Raises:
        SpecError: The compression is unknown.
        ArchiveError: A sample or the metadata cannot be stored.
    """
    if compression is not None and compression not in CODECS:
        raise SpecError(f"compression must be None or one of {', '.join(CODECS)}, got {compression!r}")
    header = _json({"version": VERSION, "kind": kind, "compression": compression, "metadata": dict(metadata or {})})
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    building = path.with_name(f".{path.name}.building-{platform.node()}-{os.getpid()}")
    index_building = building.with_name(f"{building.name}.index")
    try:
        with HashedFile(building) as file:
            builder = IndexBuilder()
            file.write(pack_block(_member(HEADER_NAME, header), compression))
            blocks = written_blocks(source, parts, compression=compression, workers=workers, progress=progress)
            for block, data in blocks:
                builder.add(0, file.size_bytes, block)
                file.write(data)
            digest = file.entry.sha256
            tail = _tail(builder.finish(), digest, compression)
            places = {"tail_offset": file.size_bytes, "tail_sha256": hashlib.sha256(tail).hexdigest()}
            notes = {**json.loads(header), **places, "sha256": digest}
            file.write(tail)
        with HashedFile(index_building) as index_file:
            index_file.write(builder.finish(notes).to_bytes())
        # An index of another file is known for one, so dying between the two leaves nothing wrong.
        index_building.replace(index_path(path))
        building.replace(path)
    finally:
        building.unlink(missing_ok=True)
        index_building.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove what builders of this archive left that were killed on this machine."""
    started = f".{path.name}.building-{platform.node()}-"
    for leftover in path.parent.glob(f"{glob.escape(started)}*"):
        process = leftover.name.removeprefix(started).partition(".")[0]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            leftover.unlink(missing_ok=True)


def index_path(path: Path) -> Path:
    """Give where the index of an archive lies."""
    return path.with_name(f"{path.name}.index")


def index_beside(path: Path) -> TarIndex | None:
    """Read the index beside an archive; None where there is none, or it is damaged or of another file."""
    try:
        # What claims to be an index is not read at any size.
        if index_path(path).stat().st_size > _INDEX_BYTES_FREE + 4 * path.stat().st_size:
            return None
        index = TarIndex.from_file(index_path(path))
        offset, digest = int(index.notes["tail_offset"]), str(index.notes["tail_sha256"])
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(min(offset, size))
            if not 0 <= offset < size or hashlib.file_digest(file, "sha256").hexdigest() != digest:
                return None
        index.check_files([offset])
        check_header(index.notes, str(index_path(path)))
    except (ArchiveError, OSError, KeyError, TypeError, ValueError):
        return None
    return index


def check_header(header: Any, where: str) -> None:
    """Refuse an archive of a version or kind that is not known here.

    Raises:
        ArchiveError: It is.
    """
    if not isinstance(header, dict) or header.get("version") != VERSION:
        raise ArchiveError(f"{where}: the archive is not of version {VERSION}; read it with a newer release")
    if header.get("kind") not in ("decoded", "encoded", "pairs") or not isinstance(header.get("metadata"), dict):
        raise ArchiveDamagedError(f"{where}: what the archive says of itself is broken")


def runs_of(index: TarIndex) -> list[tuple[int, int, int]]:
    """Give skeleton and number of members of the samples, with how many samples in a row have them."""
    pairs = zip(index.samples[:, 2].tolist(), index.samples[:, 1].tolist(), strict=True)
    return [(skeleton, count, sum(1 for _ in group)) for (skeleton, count), group in itertools.groupby(pairs)]


def _tail(index: TarIndex, digest: str, compression: str | None) -> bytes:
    footer = {"count": len(index.samples), "skeletons": index.skeletons, "runs": runs_of(index), "sha256": digest}
    return pack_block(_member(FOOTER_NAME, _json(footer)), compression) + end_of_tar(compression)


def _member(name: str, data: bytes) -> bytearray:
    append_members(block := bytearray(), (NO_LEAVES, [(name, data)]))
    return block


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except (TypeError, ValueError) as error:
        raise ArchiveError(f"metadata are stored as JSON, and these cannot be: {error}; use plain values") from error
