"""Plain tar with an index of offsets: readable by any tar program, read here at random."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
from array import array
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from autotune.data.archives._base import (
    HashedFile,
    Manifest,
    Progress,
    StoredFile,
    check_form,
    finish_manifest,
    read_manifest,
    sized,
    write_file,
)
from autotune.data.samples import Leaf, Skeleton, put_together, take_apart
from autotune.data.stages import base_sample, is_staged, leaves_of, read_stage
from autotune.errors import ArchiveDamagedError, ArchiveError
from autotune.spec.config import StoredForm

_TAR_NAME = "samples.tar"
_MEMBERS_NAME = "members.npy"
_SAMPLES_NAME = "samples.npy"
_SKELETONS_NAME = "skeletons.json"
_OWN_MEMORY_BYTES = 4096
"""Leaves under this size are copied, so that keeping a label does not keep the image's buffer."""


class TarFormat:
    """Samples as members of one tar: original bytes (`encoded`), or `.npy` files (`decoded`)."""

    def build(
        self, source: Dataset[Any], directory: Path, *, stored: StoredForm = "decoded", progress: Progress | None = None
    ) -> Manifest:
        """Store every sample of `source` as members of one tar.

        Raises:
            ArchiveError: `encoded` is asked of a dataset without `read` and `decode`, or a sample holds
                what cannot be given back exactly.
        """
        check_form("tar", stored)
        count = sized(source)
        if stored == "encoded" and not is_staged(source):
            raise ArchiveError(
                f"stored='encoded' needs a dataset with read(index) and decode(raw), got {type(source).__qualname__}; "
                "use stored='decoded'"
            )
        with HashedFile(directory / _TAR_NAME) as file:
            writer = _TarWriter(file)
            for index in range(count):
                writer.add(index, *(_encoded(source, index) if stored == "encoded" else _decoded(source, index)))
                if progress is not None:
                    progress(index + 1, count)
            file.write(bytes(2 * tarfile.BLOCKSIZE))
        entries = {_TAR_NAME: file.entry, **writer.write_index(directory)}
        return finish_manifest(source, directory, form=("tar", stored), files=entries)

    def open(self, directory: Path) -> Dataset[Any]:
        """Open the tar at the first access, in each process anew."""
        return TarDataset(directory)


class TarDataset(Dataset[Any]):
    """Samples (`decoded`) or tuples of bytes (`encoded`) of a folder that `TarFormat` built."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stored: StoredForm = read_manifest(directory).stored
        try:
            self._members: npt.NDArray[np.int64] = np.load(directory / _MEMBERS_NAME, allow_pickle=False)
            self._samples: npt.NDArray[np.int64] = np.load(directory / _SAMPLES_NAME, allow_pickle=False)
            texts = json.loads((directory / _SKELETONS_NAME).read_bytes())
            self._skeletons: list[Skeleton] = [json.loads(text) for text in texts]
        except (OSError, ValueError) as error:
            raise ArchiveDamagedError(f"the index in {directory} cannot be read: {error}") from error
        self._file = _ProcessFile(directory / _TAR_NAME)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be under {len(self)}, got {index}")
        first, count, skeleton = self._samples[index].tolist()
        extents = self._members[first : first + count].tolist()
        if not extents:
            return put_together(self._skeletons[skeleton], []) if self.stored == "decoded" else ()
        start = extents[0][0]
        buffer = self._file.read(start, extents[-1][0] + extents[-1][1] - start)
        if self.stored == "encoded":
            return tuple(bytes(buffer[offset - start : offset - start + size]) for offset, size in extents)
        leaves = [_leaf(buffer, offset - start) for offset, _ in extents]
        return put_together(self._skeletons[skeleton], leaves)

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory}

    def __setstate__(self, state: dict[str, Any]) -> None:
        TarDataset.__init__(self, state["directory"])


class _ProcessFile:
    """A file read at offsets, opened once in each process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor = -1
        self._process = -1

    def read(self, offset: int, size: int) -> memoryview:
        buffer = bytearray(size)
        view = memoryview(buffer)
        done = 0
        while done < size:
            got = os.preadv(self._opened(), [view[done:]], offset + done)
            if not got:
                raise ArchiveDamagedError(f"{self._path} ends before byte {offset + size}; build the archive anew")
            done += got
        return view

    def _opened(self) -> int:
        if self._process != os.getpid():
            with self._lock:
                if self._process != os.getpid():
                    self._close()
                    self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                    self._process = os.getpid()
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self._close()


class _TarWriter:
    """Members with their offsets, written one after the other."""

    def __init__(self, file: HashedFile) -> None:
        self._file = file
        self._members = array("q")
        self._samples = array("q")
        self._skeletons: dict[str, int] = {}

    def add(self, index: int, skeleton: str, parts: Sequence[tuple[str, bytes]]) -> None:
        place = self._skeletons.setdefault(skeleton, len(self._skeletons))
        self._samples.extend((len(self._members) // 2, len(parts), place))
        for name, data in parts:
            member = tarfile.TarInfo(f"{index:08d}.{name}")
            member.size = len(data)
            self._file.write(member.tobuf(tarfile.GNU_FORMAT))
            self._members.extend((self._file.size_bytes, len(data)))
            self._file.write(data)
            self._file.write(bytes(-len(data) % tarfile.BLOCKSIZE))

    def write_index(self, directory: Path) -> dict[str, StoredFile]:
        tables = {
            _MEMBERS_NAME: _npy(np.asarray(self._members, dtype=np.int64).reshape(-1, 2)),
            _SAMPLES_NAME: _npy(np.asarray(self._samples, dtype=np.int64).reshape(-1, 3)),
            _SKELETONS_NAME: json.dumps(list(self._skeletons)).encode(),
        }
        return {name: write_file(directory, name, data) for name, data in tables.items()}


def _encoded(source: Any, index: int) -> tuple[str, list[tuple[str, bytes]]]:
    raw = read_stage(source, index)
    names = getattr(leaves_of(source)[0], "part_names", ())
    if len(names) != len(raw):
        names = tuple(f"{place}.bin" for place in range(len(raw)))
    return '["none"]', list(zip(names, raw, strict=True))


def _decoded(source: Any, index: int) -> tuple[str, list[tuple[str, bytes]]]:
    skeleton, leaves = take_apart(base_sample(source, index))
    return skeleton, [(f"{place}.npy", _npy(np.asarray(leaf, order="C"))) for place, leaf in enumerate(leaves)]


def _npy(leaf: Leaf) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, leaf, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _leaf(buffer: memoryview, start: int) -> Leaf:
    """Give an array inside `buffer`, which the sample owns; small ones are copied out of it."""
    length = 10 + int.from_bytes(buffer[start + 8 : start + 10], "little")
    dtype, shape, count = _parse_header(bytes(buffer[start : start + length]))
    leaf = np.frombuffer(buffer, dtype, count, start + length).reshape(shape)
    return leaf.copy() if leaf.nbytes < _OWN_MEMORY_BYTES else leaf


@lru_cache(maxsize=4096)
def _parse_header(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    try:
        stream = io.BytesIO(header)
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except ValueError as error:
        raise ArchiveDamagedError(f"a stored array has a broken header: {error}") from error
    return dtype, shape, int(np.prod(shape, dtype=np.int64))
