"""Compressed files inflated from front to back, with the places where their blocks end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from autotune.data.archives.compression import Codec
from autotune.errors import ArchiveDamagedError
from autotune.units import MIB

_READ_BYTES = 1 * MIB


class Piece(NamedTuple):
    """Some inflated bytes of a stream.

    Attributes:
        data: The bytes.
        stored_end: Bytes of the file up to where the block ends, or those read so far.
        ends_block: Whether a block ends here.
    """

    data: bytes
    stored_end: int
    ends_block: bool


def inflate_pieces(file: BinaryIO, codec: Codec) -> Iterator[Piece]:
    """Inflate a whole file piece by piece, and tell where its blocks end.

    Raises:
        ArchiveDamagedError: It is no such file, or is cut off.
    """
    read, waiting = 0, b""
    while True:
        waiting = waiting.lstrip(b"\0")  # what pads tapes and streams of xz
        if not waiting:
            waiting = file.read(_READ_BYTES)
            read += len(waiting)
            if not waiting:
                return
            continue
        inflater = codec.inflater()
        while True:
            data = inflater.feed(waiting)
            waiting = b""
            if inflater.finished:
                break
            yield Piece(data, read - len(inflater.rest), ends_block=False)
            if not data:
                waiting = file.read(_READ_BYTES)
                read += len(waiting)
                if not waiting:
                    raise ArchiveDamagedError(f"the {codec.suffix} stream ends in the middle of a block")
        waiting = inflater.rest
        yield Piece(data, read - len(waiting), ends_block=True)
