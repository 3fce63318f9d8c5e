"""Compression of one block of a tar at a time, and inflating with a bound."""

from __future__ import annotations

import lzma
import threading
import zlib
from collections.abc import Mapping
from typing import Any, Protocol

from autotune.data.extras import needed
from autotune.errors import ArchiveDamagedError
from autotune.units import MIB

_GZIP = 31
"""zlib's window bits for a gzip member with the largest window."""
_XZ_MEMORY_BYTES = 256 * MIB
"""A stream may claim any dictionary; the largest preset of xz needs 65 MiB."""
_GZIP_LEVEL = 4
"""Measured on float rasters: 84 MB/s against 22 MB/s at level 6, for 4 to 14 % more bytes; read as fast."""
_XZ_PRESET = 1
"""Measured on the same: 17 to 27 MB/s against 3 MB/s at preset 6, for 5 to 40 % more bytes; read as fast."""
_PIECE_BYTES = 1 * MIB
_ZSTD_INPUT_BYTES = 1024
"""zstandard has no bound on what one piece gives: 1 KiB gives 32 MiB at most, as 4 bytes make a block of 128 KiB."""


class Codec(Protocol):
    """One way to compress; blocks that stand one after the other are one file to every tool."""

    suffix: str

    def compress(self, data: bytes | bytearray) -> bytes:
        """Compress one block; the same bytes give the same block."""

    def inflate(self, data: bytes | memoryview, size: int) -> bytes:
        """Inflate one block of which the size is known, and never beyond it."""

    def inflater(self) -> Inflater:
        """Start to inflate a stream of unknown size."""


class Inflater(Protocol):
    """Inflates one block piece by piece."""

    finished: bool
    """Whether the block's end was seen."""
    rest: bytes
    """What was given and belongs to the next piece or block."""

    def feed(self, data: bytes) -> bytes:
        """Give some of what `rest + data` inflates to, about 1 MiB and never above 32 MiB."""


class GzipCodec:
    """gzip members: no time, no name."""

    suffix = "gz"

    def compress(self, data: bytes | bytearray) -> bytes:
        """Compress one block to a gzip member."""
        packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP)
        return packer.compress(data) + packer.flush()

    def inflate(self, data: bytes | memoryview, size: int) -> bytes:
        """Inflate one gzip member."""
        inflater = zlib.decompressobj(_GZIP)
        try:
            whole = inflater.decompress(data, size + 1)
        except zlib.error as error:
            raise _damaged(error) from error
        return _checked(whole, size, finished=inflater.eof)

    def inflater(self) -> Inflater:
        """Start a gzip member."""
        return _GzipInflater()


class XzCodec:
    """xz streams whose dictionary is no larger than the block, as the reader sets it up for each."""

    suffix = "xz"

    def compress(self, data: bytes | bytearray) -> bytes:
        """Compress one block to an xz stream."""
        dictionary = min(max(4096, 1 << max(0, len(data) - 1).bit_length()), 64 * MIB)
        filters = [{"id": lzma.FILTER_LZMA2, "preset": _XZ_PRESET, "dict_size": dictionary}]
        return lzma.compress(data, format=lzma.FORMAT_XZ, filters=filters)

    def inflate(self, data: bytes | memoryview, size: int) -> bytes:
        """Inflate one xz stream."""
        inflater = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        try:
            whole = inflater.decompress(data, size + 1)
        except (lzma.LZMAError, EOFError) as error:
            raise _damaged(error) from error
        return _checked(whole, size, finished=inflater.eof)

    def inflater(self) -> Inflater:
        """Start an xz stream."""
        return _XzInflater()


class ZstdCodec:
    """Zstandard frames that declare their size and end with a checksum."""

    suffix = "zst"

    def __init__(self) -> None:
        self._kept = threading.local()

    def compress(self, data: bytes | bytearray) -> bytes:
        """Compress one block to a frame."""
        packer = _zstandard().ZstdCompressor(level=3, write_checksum=True, write_content_size=True)
        frame: bytes = packer.compress(data)
        return frame

    def inflate(self, data: bytes | memoryview, size: int) -> bytes:
        """Inflate one frame."""
        zstandard = _zstandard()
        try:
            # The library would allocate what the frame declares.
            declared = zstandard.frame_content_size(data)
            if declared not in (size, -1):
                raise ArchiveDamagedError(f"a compressed block must hold {size} bytes, and declares {declared}")
            whole: bytes = self._inflater().decompress(data, max_output_size=size) if size else b""
        except zstandard.ZstdError as error:
            raise _damaged(error) from error
        return _checked(whole, size, finished=True)

    def inflater(self) -> Inflater:
        """Start a frame."""
        return _ZstdInflater()

    def _inflater(self) -> Any:
        if not hasattr(self._kept, "inflater"):
            self._kept.inflater = _zstandard().ZstdDecompressor()
        return self._kept.inflater

    def __reduce__(self) -> tuple[type[ZstdCodec], tuple[()]]:
        """Travel without what each thread keeps."""
        return type(self), ()


class _GzipInflater:
    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(_GZIP)
        self.finished = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        try:
            piece = self._inflater.decompress(self.rest + data, _PIECE_BYTES)
        except zlib.error as error:
            raise _damaged(error) from error
        self.finished = self._inflater.eof
        self.rest = self._inflater.unused_data if self.finished else self._inflater.unconsumed_tail
        return piece


class _XzInflater:
    def __init__(self) -> None:
        self._inflater = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        self.finished = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        if not self._inflater.needs_input:
            self.rest += data
            data = b""
        else:
            data, self.rest = self.rest + data, b""
        try:
            piece = self._inflater.decompress(data, _PIECE_BYTES)
        except (lzma.LZMAError, EOFError) as error:
            raise _damaged(error) from error
        self.finished = self._inflater.eof
        if self.finished:
            self.rest = self._inflater.unused_data + self.rest
        return piece


class _ZstdInflater:
    def __init__(self) -> None:
        self._inflater = _zstandard().ZstdDecompressor().decompressobj()
        self.finished = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        waiting = self.rest + data
        pieces: list[bytes] = []
        size = place = 0
        while place < len(waiting) and size < _PIECE_BYTES and not self.finished:
            try:
                piece = self._inflater.decompress(waiting[place : place + _ZSTD_INPUT_BYTES])
            except _zstandard().ZstdError as error:
                raise _damaged(error) from error
            place += _ZSTD_INPUT_BYTES
            size += len(piece)
            pieces.append(piece)
            self.finished = self._inflater.eof
        unused = self._inflater.unused_data if self.finished else b""
        self.rest = unused + waiting[place:]
        return b"".join(pieces)


def _checked(whole: bytes, size: int, *, finished: bool) -> bytes:
    if len(whole) != size or not finished:
        raise ArchiveDamagedError(
            f"a compressed block must inflate to {size} bytes, and it has {'fewer' if len(whole) < size else 'more'}"
        )
    return whole


def _damaged(error: Exception) -> ArchiveDamagedError:
    return ArchiveDamagedError(f"a compressed block is damaged: {error}")


def _zstandard() -> Any:
    return needed("zstandard", "archive 'tar.zst'")


CODECS: Mapping[str, Codec] = {"gz": GzipCodec(), "xz": XzCodec(), "zst": ZstdCodec()}
"""Compressions of a tar by the end of the file's name."""
