"""Formats read and written with the packages that define them, as their documentation shows it."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate, get_worker_info

from autotune.data.samples import take_apart
from autotune.data.stages import base_sample, leaves_of, read_stage

SHUFFLE_BUFFER = 100
"""Samples in the shuffle buffer of everything that streams, ours and theirs."""
SHARDS = 8
_LMDB_MAP_BYTES = 1 << 40

Decode = Callable[[Sequence[bytes]], Any]
"""Turns the stored parts of a sample into the sample."""


def decoder(source: Dataset[Any], stored: str) -> Decode:
    """Give what turns stored parts into samples: the dataset's own decoding, or that of `.npy` files."""
    return leaves_of(source)[0].decode if stored == "encoded" else _arrays


def _arrays(parts: Sequence[bytes]) -> Any:
    return tuple(torch.from_numpy(np.load(io.BytesIO(part), allow_pickle=False)) for part in parts)


def _stored_parts(source: Dataset[Any], index: int, stored: str) -> list[Any]:
    """Give one sample as it is stored: bytes, or arrays."""
    if stored == "encoded":
        return list(read_stage(source, index))
    return list(take_apart(base_sample(source, index))[1])


def plain_loader(dataset: Dataset[Any], batch: int, workers: int, *, shuffle: bool = True) -> Iterable[Any]:
    """Give torch's own loader, with what every row has: persistent workers, shuffled."""
    shuffled = shuffle and not isinstance(dataset, IterableDataset)
    return DataLoader(dataset, batch_size=batch, shuffle=shuffled, num_workers=workers, persistent_workers=workers > 0)


# numpy


class NumpyRows(Dataset[Any]):
    """Rows of memory-mapped `.npy` files, copied one by one."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)
        self._maps: list[Any] | None = None
        self._count = len(np.load(self._files[0], mmap_mode="r"))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        if self._maps is None:
            self._maps = [np.load(path, mmap_mode="r") for path in self._files]
        return tuple(torch.from_numpy(np.array(rows[index])) for rows in self._maps)


# h5py


def write_hdf5(source: Dataset[Any], directory: Path, stored: str) -> None:
    """Write one dataset for each part: contiguous arrays, or byte strings of any length."""
    import h5py

    count = len(cast("Any", source))
    with h5py.File(directory / "samples.h5", "w") as file:
        first = _stored_parts(source, 0, stored)
        if stored == "encoded":
            sets = [file.create_dataset(f"part_{n}", (count,), h5py.vlen_dtype(np.uint8)) for n in range(len(first))]
        else:
            sets = [file.create_dataset(f"part_{n}", (count, *one.shape), one.dtype) for n, one in enumerate(first)]
        for index in range(count):
            for place, part in zip(sets, _stored_parts(source, index, stored), strict=True):
                place[index] = np.frombuffer(part, np.uint8) if stored == "encoded" else part


class Hdf5Rows(Dataset[Any]):
    """Samples of a file that `write_hdf5` wrote."""

    def __init__(self, directory: Path, count: int, decode: Decode | None) -> None:
        self._path = directory / "samples.h5"
        self._count = count
        self._decode = decode
        self._sets: list[Any] | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        if self._sets is None:
            import h5py

            file = h5py.File(self._path, "r")
            self._sets = [file[name] for name in sorted(file)]
        rows = [one[index] for one in self._sets]
        if self._decode is not None:
            return self._decode([row.tobytes() for row in rows])
        return tuple(torch.from_numpy(np.asarray(row)) for row in rows)


# lmdb


def write_lmdb(source: Dataset[Any], directory: Path, stored: str) -> None:
    """Write one value for each part of a sample: original bytes, or the array's bytes."""
    import lmdb

    with lmdb.open(os.fspath(directory), map_size=_LMDB_MAP_BYTES) as environment:
        transaction = environment.begin(write=True)
        for index in range(len(cast("Any", source))):
            for place, part in enumerate(_stored_parts(source, index, stored)):
                value = part if stored == "encoded" else np.ascontiguousarray(part).tobytes()
                transaction.put(f"{index:08d}.{place}".encode(), value, append=True)
            if index % 500 == 499:
                transaction.commit()
                transaction = environment.begin(write=True)
        transaction.commit()


class LmdbRows(Dataset[Any]):
    """Samples of a folder that `write_lmdb` wrote."""

    def __init__(self, directory: Path, source: Dataset[Any], stored: str) -> None:
        self._path = os.fspath(directory)
        self._count = len(cast("Any", source))
        self._decode = decoder(source, stored) if stored == "encoded" else None
        self._layout = [getattr(part, "dtype", None) for part in _stored_parts(source, 0, stored)]
        self._shapes = [getattr(part, "shape", ()) for part in _stored_parts(source, 0, stored)]
        self._environment: Any = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        if self._environment is None:
            import lmdb

            self._environment = lmdb.open(self._path, readonly=True, lock=False, readahead=False)
        keys = [f"{index:08d}.{place}".encode() for place in range(len(self._layout))]
        with self._environment.begin(buffers=True) as transaction:
            values = [transaction.get(key) for key in keys]
            if self._decode is not None:
                return self._decode([bytes(value) for value in values])
            return tuple(
                torch.from_numpy(np.frombuffer(value, dtype).reshape(shape).copy())
                for value, dtype, shape in zip(values, self._layout, self._shapes, strict=True)
            )


# tarfile


class TarMembers(Dataset[Any]):
    """Samples of a tar whose list of members was read once; `tarfile` reads the members."""

    def __init__(self, path: Path, decode: Decode) -> None:
        self._path = path
        self._decode = decode
        self._file: tarfile.TarFile | None = None
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        grouped: dict[str, list[tarfile.TarInfo]] = {}
        for member in members:
            grouped.setdefault(member.name.partition(".")[0], []).append(member)
        self._samples = list(grouped.values())

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        if self._file is None:
            self._file = tarfile.open(self._path)  # noqa: SIM115 - as long as the dataset
        return self._decode([_member(self._file, member) for member in self._samples[index]])


class TarScanned:
    """A few samples, for each of which the tar is opened and its members are listed anew."""

    def __init__(self, path: Path, decode: Decode, indices: Sequence[int]) -> None:
        self._path = path
        self._decode = decode
        with tarfile.open(path) as tar:
            names = tar.getnames()
        self._names = [[name for name in names if name.startswith(f"{index:08d}.")] for index in indices]

    def __iter__(self) -> Iterator[Any]:
        for names in self._names:
            with tarfile.open(self._path) as tar:
                yield default_collate([self._decode([_member(tar, tar.getmember(name)) for name in names])])


class TarStream(IterableDataset[Any]):
    """Samples of compressed tars from front to back; each worker reads all and decodes its share."""

    def __init__(self, paths: Sequence[Path], decode: Decode) -> None:
        self._paths = list(paths)
        self._decode = decode

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        step, own = (worker.num_workers, worker.id) if worker else (1, 0)
        parts = (sample for number, sample in enumerate(self._samples()) if number % step == own)
        return map(self._decode, _shuffled(parts))

    def _samples(self) -> Iterator[list[bytes]]:
        for path in self._paths:
            with _inflated(path) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                key = ""
                parts: list[bytes] = []
                for member in tar:
                    name = member.name.partition(".")[0]
                    if name != key and parts:
                        yield parts
                        parts = []
                    key = name
                    parts.append(_member(tar, member))
                if parts:
                    yield parts


@contextmanager
def _inflated(path: Path) -> Iterator[BinaryIO]:
    """Open a file of any of the compressions, all of its members and frames."""
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            yield cast("BinaryIO", file)
    elif path.suffix == ".xz":
        with lzma.open(path) as file:
            yield cast("BinaryIO", file)
    elif path.suffix == ".zst":
        import zstandard

        with path.open("rb") as raw:
            yield cast("BinaryIO", zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    else:
        with path.open("rb") as plain:
            yield plain


def _shuffled(samples: Iterable[Any]) -> Iterator[Any]:
    generator = random.Random()
    buffer: list[Any] = []
    for sample in samples:
        if len(buffer) < SHUFFLE_BUFFER:
            buffer.append(sample)
            continue
        place = generator.randrange(SHUFFLE_BUFFER)
        yield buffer[place]
        buffer[place] = sample
    generator.shuffle(buffer)
    yield from buffer


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise ValueError(f"{member.name} must be a file")
    return file.read()


# webdataset


def write_shards(source: Dataset[Any], directory: Path, stored: str) -> None:
    """Write shards with the package's own writer."""
    import webdataset

    count = len(cast("Any", source))
    names = part_names(source, stored)
    with webdataset.ShardWriter(f"{directory}/shard-%06d.tar", maxcount=-(-count // SHARDS), verbose=0) as writer:
        for index in range(count):
            parts = _stored_parts(source, index, stored)
            writer.write({"__key__": f"{index:08d}", **dict(zip(names, parts, strict=True))})


def part_names(source: Dataset[Any], stored: str) -> list[str]:
    """Give the names of a sample's parts inside a shard, in their order."""
    if stored == "encoded":
        return list(leaves_of(source)[0].part_names)
    return [f"{place}.npy" for place in range(len(take_apart(base_sample(source, 0))[1]))]


def shard_loader(
    shards: Sequence[Path], names: Sequence[str], decode: Decode, *, batch: int, workers: int
) -> Iterable[Any]:
    """Read shards with the package's own pipeline and loader."""
    import webdataset

    def sample(parts: Mapping[str, bytes]) -> Any:
        return decode([parts[name] for name in names])

    dataset = (
        webdataset.WebDataset([os.fspath(shard) for shard in shards], shardshuffle=SHARDS, empty_check=False)
        .shuffle(SHUFFLE_BUFFER)
        .map(sample)
        .batched(batch, partial=True, collation_fn=default_collate)
    )
    loader: Iterable[Any] = webdataset.WebLoader(
        dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0
    )
    return loader


# the limit


class Gathered:
    """The replayed-batch bound: one thread gathers random whole batches from memory into fresh tensors."""

    def __init__(self, files: Sequence[Path], batch: int) -> None:
        torch.set_num_threads(1)
        self._store = [torch.from_numpy(np.load(path)) for path in files]
        self._batch = batch

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(len(self._store[0]))
        for start in range(0, len(order), self._batch):
            places = order[start : start + self._batch]
            yield [leaf.index_select(0, places) for leaf in self._store]
