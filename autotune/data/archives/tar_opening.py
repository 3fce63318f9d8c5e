"""A tar of any origin, opened: ours by its index or a scan, others' by a scan, inflated first where need be."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autotune.data.archives.foreign_tar import index_foreign, part_names
from autotune.data.archives.inflating import compression_of, inflated_copy
from autotune.data.archives.tar_file import index_beside
from autotune.data.archives.tar_index import TarIndex
from autotune.data.archives.tar_reader import TarReader
from autotune.data.archives.tar_rebuild import is_ours, rebuilt_index
from autotune.data.archives.tar_scan import TarLimits, bytes_reader, tar_members
from autotune.errors import ArchiveDamagedError, ArchiveError
from autotune.units import MIB, format_bytes

_logger = logging.getLogger(__name__)

_HASHED_BYTES = 4 * MIB


@dataclass(frozen=True, kw_only=True)
class OpenedTar:
    """A tar whose samples can be read.

    Attributes:
        path: The tar itself.
        reader: Its samples: what was stored (`decoded`), or tuples of bytes.
        kind: What the samples are; `foreign` are groups of members.
        keys: Names of foreign samples.
        metadata: What was stored beside the samples.
    """

    path: Path
    reader: TarReader
    kind: Literal["decoded", "encoded", "pairs", "foreign"]
    keys: tuple[str, ...]
    metadata: Mapping[str, Any]

    def names(self, index: int) -> tuple[str, ...]:
        """Give the names of a sample's members; foreign ones without the key."""
        if self.kind == "foreign":
            return part_names(self.reader.index, index)
        block = self.reader.block(index)
        found = tar_members(bytes_reader(block), len(block), where=str(self.path))
        by_offset = {member.offset: member.name for member in found}
        return tuple(by_offset[offset] for offset, _ in self.reader.extents(index))

    def verify(self) -> None:
        """Read an archive of ours whole and compare its bytes with the checksum at its end.

        Raises:
            ArchiveDamagedError: They differ.
        """
        notes = self.reader.index.notes
        if self.kind == "foreign":
            return
        digest, left = hashlib.sha256(), int(notes["tail_offset"])
        with self.path.open("rb") as file:
            while left and (data := file.read(min(left, _HASHED_BYTES))):
                digest.update(data)
                left -= len(data)
        if left or digest.hexdigest() != notes.get("sha256"):
            raise ArchiveDamagedError(f"the bytes of {self.path} do not match their checksum; build the archive anew")


def open_tar(path: Path, *, limits: TarLimits, cache_folder: Callable[[], Path]) -> OpenedTar:
    """Open a tar for reading at random.

    Args:
        path: The tar, plain or compressed.
        limits: How far it may go.
        cache_folder: Gives the folder that foreign compressed ones are inflated into; asked for those only.

    Raises:
        ArchiveError: It cannot be read, holds what is refused, or goes beyond the limits.
        CapacityError: The disk is too small to inflate it.
    """
    compression = compression_of(path)
    if is_ours(path, compression):
        return _open_ours(path, compression, limits)
    plain = path if compression is None else inflated_copy(path, compression, cache_folder(), limits)
    try:
        index, keys = index_foreign([plain], limits, by_folder=True)
    except ArchiveError as error:
        if compression is None:
            raise
        raise type(error)(f"{path}, inflated as {error}") from error
    reader = TarReader([plain], index, stored="encoded")
    return OpenedTar(path=path, reader=reader, kind="foreign", keys=keys, metadata={})


def _open_ours(path: Path, compression: str | None, limits: TarLimits) -> OpenedTar:
    index = index_beside(path)
    if index is None:
        _logger.info("%s has no index beside it; it is scanned", path)
        index = rebuilt_index(path, compression, limits)
    if index.notes.get("compression") != compression:
        raise ArchiveDamagedError(f"{path} says that it is compressed by {index.notes.get('compression')}")
    _check_limits(path, index, limits, plain=compression is None)
    kind = index.notes["kind"]
    reader = TarReader([path], index, stored="decoded" if kind == "decoded" else "encoded", compression=compression)
    return OpenedTar(path=path, reader=reader, kind=kind, keys=(), metadata=index.notes["metadata"])


def _check_limits(path: Path, index: TarIndex, limits: TarLimits, *, plain: bool) -> None:
    """Refuse blocks that would take more memory than allowed, before one is read."""
    stored, inflated = index.blocks[:, 2], index.blocks[:, 3]
    if plain and (stored != inflated).any():
        raise ArchiveDamagedError(f"the index of {path} claims more bytes than are stored; build the archive anew")
    if len(inflated) and inflated.max() > limits.sample_bytes:
        raise ArchiveError(
            f"{path}: a sample of {format_bytes(int(inflated.max()))}, and at most "
            f"{format_bytes(limits.sample_bytes)} are read at once"
        )
    if len(inflated):
        worst = int((inflated - limits.ratio * stored).argmax())
        limits.check(str(path), int(stored[worst]), int(inflated[worst]))
