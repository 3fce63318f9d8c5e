"""Rows of the packages that define the formats or keep caches, and the limit of what can be reached."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from archives_ours import stream_name
from archives_plain import (
    Gathered,
    Hdf5Rows,
    LmdbRows,
    NumpyRows,
    TarMembers,
    TarScanned,
    TarStream,
    decoder,
    part_names,
    plain_loader,
    shard_loader,
    write_hdf5,
    write_lmdb,
    write_shards,
)
from archives_setting import (
    BOUND,
    SCANNED,
    SCANNED_SAMPLES,
    Form,
    Row,
    Setting,
    Written,
    archive_files,
    installed,
    plain_files,
    scanned_samples,
)
from torch.utils.data import Dataset

PACKAGES_WRITE: Mapping[str, Callable[[Dataset[Any], Path, str], None]] = {
    "webdataset": write_shards,
    "h5py": write_hdf5,
    "lmdb": write_lmdb,
}


def packages_to_write(stored: Sequence[str]) -> tuple[list[Written], list[str]]:
    """Give what packages are asked to write, and say what is not installed."""
    found = {name: installed(name) for name in PACKAGES_WRITE}
    written = [
        Written(name=name, stored=form, write=write)
        for name, write in PACKAGES_WRITE.items()
        if found[name]
        for form in stored
    ]
    return written, [f"{name}: not installed" for name, there in found.items() if not there]


def package_rows(stored: Sequence[str], forms: Sequence[Form]) -> Iterator[Row]:
    """Give the rows of packages that this environment has."""
    for form in stored:
        if ("tar", form) in forms:
            yield _tar_row(form)
        for name in ("tar", "tar.gz", "tar.xz", "tar.zst"):
            if (name, form) in forms:
                yield _tar_stream_row((name, form))
        if installed("h5py"):
            yield _hdf5_row(form)
        if installed("lmdb"):
            yield _lmdb_row(form)
        if installed("webdataset"):
            yield _shard_row(form, "its own shards", partial(Setting.plain, name="webdataset", stored=form))
            if ("webdataset", form) in forms:
                yield _shard_row(form, "our shards", partial(Setting.archive, form=("webdataset", form)))
    scanned = next((form for form in stored if ("tar", form) in forms), None)
    if scanned is not None:
        yield _scanned_row(scanned)


def _tar_row(stored: str) -> Row:
    def make(setting: Setting, workers: int) -> Iterable[Any]:
        dataset = TarMembers(_tars(setting, ("tar", stored))[0], decoder(setting.source(), stored))
        return plain_loader(dataset, setting.batch, workers)

    return Row(
        name=f"tarfile, members listed, {stored}",
        family="package",
        loader=make,
        files=archive_files(("tar", stored)),
    )


def _tar_stream_row(form: Form) -> Row:
    def make(setting: Setting, workers: int) -> Iterable[Any]:
        dataset = TarStream(_tars(setting, form), decoder(setting.source(), form[1]))
        return plain_loader(dataset, setting.batch, workers)

    return Row(name=stream_name(form), family="package", loader=make, files=archive_files(form))


def _scanned_row(stored: str) -> Row:
    def make(setting: Setting, workers: int) -> Iterable[Any]:
        del workers
        places = random.Random(setting.seed).sample(range(setting.samples), scanned_samples(setting))
        return TarScanned(_tars(setting, ("tar", stored))[0], decoder(setting.source(), stored), places)

    return Row(
        name=SCANNED,
        family="package",
        loader=make,
        files=archive_files(("tar", stored)),
        most_workers=0,
        samples=SCANNED_SAMPLES,
    )


def _hdf5_row(stored: str) -> Row:
    def make(setting: Setting, workers: int) -> Iterable[Any]:
        decode = decoder(setting.source(), stored) if stored == "encoded" else None
        dataset = Hdf5Rows(setting.plain("h5py", stored), setting.samples, decode)
        return plain_loader(dataset, setting.batch, workers)

    return Row(name=f"h5py {stored}", family="package", loader=make, files=plain_files("h5py", stored))


def _lmdb_row(stored: str) -> Row:
    def make(setting: Setting, workers: int) -> Iterable[Any]:
        dataset = LmdbRows(setting.plain("lmdb", stored), setting.source(), stored)
        return plain_loader(dataset, setting.batch, workers)

    return Row(name=f"lmdb package {stored}", family="package", loader=make, files=plain_files("lmdb", stored))


def _shard_row(stored: str, whose: str, folder: Callable[[Setting], Path]) -> Row:
    def make(setting: Setting, workers: int) -> Iterable[Any]:
        source = setting.source()
        shards = sorted(folder(setting).glob("*.tar"))
        names = part_names(source, stored)
        return shard_loader(shards, names, decoder(source, stored), batch=setting.batch, workers=workers)

    return Row(
        name=f"webdataset package, {whose}, {stored}",
        family="package",
        loader=make,
        files=lambda setting: [str(path) for path in sorted(folder(setting).glob("*.tar"))],
    )


def rival_rows() -> list[Row]:
    """Give the rows that the rivals' Python measures."""
    return [
        Row(
            name="litdata decoded",
            family="package",
            rival="litdata",
            files=lambda setting: [str(path) for path in sorted(setting.plain("litdata", "decoded").iterdir())],
        ),
        Row(name="MONAI CacheDataset", family="package", rival="monai"),
        Row(name="MONAI CacheDataset, ThreadDataLoader", family="package", rival="monai_thread", most_workers=0),
    ]


def array_rows() -> list[Row]:
    """Give the rows that read our decoded arrays: numpy as it is commonly used, and the bound."""
    return [
        Row(
            name="numpy memmap decoded",
            family="package",
            loader=lambda setting, workers: plain_loader(NumpyRows(setting.leaves), setting.batch, workers),
            files=archive_files(("npy", "decoded")),
        ),
        Row(
            name=BOUND,
            family="limit",
            loader=lambda setting, _: Gathered(setting.leaves, setting.batch),
            most_workers=0,
        ),
    ]


def _tars(setting: Setting, form: tuple[str, str]) -> list[Path]:
    return sorted(path for path in setting.archive(form).iterdir() if ".tar" in path.suffixes)
