"""Arrays as the bytes of `.npy` files, read without pickle and without trusting what a header declares."""

from __future__ import annotations

import io
from functools import lru_cache
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np

from autotune.data.samples import Leaf
from autotune.errors import ArchiveDamagedError, ArchiveError

_HEADER_BYTES_MAX = 64 * 1024
_OWN_MEMORY_BYTES = 4096
"""Arrays under this size are copied, so that keeping a label does not keep the image's buffer."""
_READERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class _Header(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    items: int
    fortran: bool


def npy_bytes(leaf: Leaf) -> bytes:
    """Write an array as a `.npy` file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(leaf, order="C"), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def npy_array(data: memoryview, *, own: bool = False) -> Leaf:
    """Give the array of a `.npy` file, writable; it shares the memory of writable `data` unless it is small.

    Args:
        data: The whole file.
        own: Whether it always gets memory of its own.

    Raises:
        ArchiveDamagedError: The file is broken, or declares another size than it has.
        ArchiveError: It holds Python objects, which would have to be unpickled.
    """
    start = _data_start(data)
    header = _parse_header(bytes(data[:start]))
    if header.dtype.itemsize * header.items != len(data) - start:
        raise ArchiveDamagedError(
            f"a stored array declares {header.dtype} of shape {header.shape}, which is "
            f"{header.dtype.itemsize * header.items} bytes, and has {len(data) - start}"
        )
    if not header.dtype.itemsize or not header.items:
        return np.zeros(header.shape, header.dtype)
    flat: Leaf = np.frombuffer(data, header.dtype, header.items, start)
    leaf = flat.reshape(header.shape[::-1]).T if header.fortran else flat.reshape(header.shape)
    return leaf.copy() if own or data.readonly or leaf.nbytes < _OWN_MEMORY_BYTES else leaf


def _data_start(data: memoryview) -> int:
    width = 2 if bytes(data[6:7]) == b"\x01" else 4
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    if len(data) < start or start > _HEADER_BYTES_MAX:
        raise ArchiveDamagedError("a stored array is cut off in its header")
    return start


@lru_cache(maxsize=4096)  # most arrays of a dataset share their header
def _parse_header(header: bytes) -> _Header:
    try:
        stream = io.BytesIO(header)
        version = np.lib.format.read_magic(stream)
        if version not in _READERS:
            raise ArchiveDamagedError(f"a stored array must be of .npy version 1 or 2, got {version}")
        shape, fortran, dtype = _READERS[version](stream)
    except (ValueError, OverflowError, RecursionError, MemoryError, SyntaxError, TokenError) as error:
        raise ArchiveDamagedError(f"a stored array has a broken header: {error}") from error
    if dtype.hasobject:
        raise ArchiveError(f"a stored array of {dtype} holds pickled objects, which are never loaded")
    if min(shape, default=0) < 0:
        raise ArchiveDamagedError(f"a stored array declares the shape {shape}")
    return _Header(dtype, shape, int(np.prod(shape, dtype=object)), fortran)
