"""How many bytes an archive will take, from a few samples that are really read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset

from autotune.data.archives._base import sized
from autotune.data.archives.compression import CODECS
from autotune.data.extras import is_installed
from autotune.data.fixed_layout import row_of
from autotune.data.randomness import probe_places
from autotune.data.samples import take_apart
from autotune.data.stages import base_sample, is_staged, read_stage
from autotune.spec.config import StoredForm
from autotune.units import MIB

_PROBES = 8
_SPARE_SHARE = 1.05
"""Indexes, and samples that are larger than those probed."""
_BLOCK_BYTES = 512
"""A tar rounds each member up to blocks of this size, and gives it one for its header."""
_PAGE_BYTES = 4096
_ARRAY_HEADER_BYTES = 128
"""Header of a `.npy` file."""
_RECORD_HEADER_BYTES = 256
"""Header of a sample in one block (`autotune.data.records`), and the padding of its arrays."""
_COMPRESSED_MAX_BYTES = MIB
"""Of a larger probe only so much is compressed, and the rest is taken to be like it."""
_FRAME_BYTES = 64

_WHOLE_CHUNKS_BYTES: Mapping[str, int] = {"hdf5": MIB, "lmdb": 16 * _PAGE_BYTES}
"""What the last chunk and the library's own tables take, however few samples there are."""

Parts = Sequence[bytes]
"""The pieces of one sample as they are stored: original bytes, or the bytes of each array."""


def estimated_bytes(dataset: Dataset[Any], name: str, stored: StoredForm) -> int:
    """Estimate the size of an archive by reading a few samples, and compressing them where the format does.

    Args:
        dataset: The source; samples are read in this process.
        name: Name of the format.
        stored: Stored form.
    """
    count = sized(dataset)
    sizes = [_SIZES.get(name, _record_bytes)(_parts(dataset, index, stored)) for index in _places(count)]
    return int(sum(sizes) / len(sizes) * count * _SPARE_SHARE) + _WHOLE_CHUNKS_BYTES.get(name, 0)


def _places(count: int) -> list[int]:
    return probe_places(count, _PROBES, seed=1)


def _parts(dataset: Dataset[Any], index: int, stored: StoredForm) -> Parts:
    if stored == "encoded" and is_staged(dataset):
        return read_stage(dataset, index)
    _, leaves = take_apart(base_sample(dataset, index))
    return [row_of(leaf).tobytes() for leaf in leaves]


def _plain_bytes(parts: Parts) -> int:
    return sum(len(part) for part in parts)


def _record_bytes(parts: Parts) -> int:
    return _plain_bytes(parts) + _RECORD_HEADER_BYTES


def _paged_bytes(parts: Parts) -> int:
    return -(-_record_bytes(parts) // _PAGE_BYTES) * _PAGE_BYTES + _RECORD_HEADER_BYTES


def _tar_bytes(parts: Parts) -> int:
    sizes = [len(part) + _ARRAY_HEADER_BYTES for part in parts] or [0]
    return sum(-(-size // _BLOCK_BYTES) * _BLOCK_BYTES + _BLOCK_BYTES for size in sizes) + _RECORD_HEADER_BYTES


def _compressed(codec: str) -> Callable[[Parts], int]:
    def size(parts: Parts) -> int:
        whole = b"".join(bytes(_BLOCK_BYTES) + part + bytes(-len(part) % _BLOCK_BYTES) for part in parts)
        head = whole[:_COMPRESSED_MAX_BYTES]
        # a package that is missing is told of by the build; until then the sample counts as it is
        known = codec != "zst" or is_installed("zstandard")
        share = len(CODECS[codec].compress(head)) / len(head) if head and known else 1.0
        return int(len(whole) * min(share, 1.0)) + _FRAME_BYTES * (1 + len(parts)) + _RECORD_HEADER_BYTES

    return size


_SIZES: Mapping[str, Callable[[Parts], int]] = {
    "tar": _tar_bytes,
    "tar.gz": _compressed("gz"),
    "tar.xz": _compressed("xz"),
    "tar.zst": _compressed("zst"),
    "webdataset": _tar_bytes,
    "hdf5": _record_bytes,
    "lmdb": _paged_bytes,
    "npy": _plain_bytes,
}
"""Bytes of one sample in each format; headers and padding are those of the format, at most."""
