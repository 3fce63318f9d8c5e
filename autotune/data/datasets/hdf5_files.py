"""HDF5 files of other programs: what is in them, by which filters, and a handle for each process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autotune.data.extras import is_installed, needed
from autotune.errors import DatasetError
from autotune.units import MIB

_WHY = "reading HDF5"
_SHOWN = 20
CHUNK_CACHE_BYTES = 16 * MIB
"""Decompressed chunks that the library keeps for each dataset: its own 1 MiB is less than one large chunk."""
_FILTERS: Mapping[int, str] = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32026: "blosc2",
}
"""Names of filters by the numbers under which they are registered with the HDF Group."""
_PLUGINS = "hdf5plugin"
_INHERITED: list[Any] = []
"""Handles of the parent: letting go of them in a forked child would close what both have open."""


class Hdf5Handle:
    """A file that each process opens at its first use; a copy or pickle opens it anew.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._file: Any = None
        self._opened: dict[str, Any] = {}
        self._opening = threading.Lock()

    def dataset(self, name: str) -> Any:
        """Give a dataset of the file, open in this process."""
        if self._pid != os.getpid():
            _INHERITED.append((self._file, self._opened))
            self._begin()
        found = self._opened.get(name)
        if found is None:
            with self._opening:
                if self._file is None:
                    self._file = open_file(self.path)
                found = self._opened[name] = self._file[name]
        return found

    def close(self) -> None:
        """Close the file in this process; the next use opens it again."""
        if self._pid == os.getpid() and self._file is not None:
            self._file.close()
            self._begin()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._begin()


def open_file(path: Path) -> Any:
    """Open a file for reading.

    Raises:
        DatasetError: It is missing, damaged or no HDF5.
        MissingExtraError: `h5py` is not installed.
    """
    h5py = needed("h5py", _WHY)
    try:
        return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=CHUNK_CACHE_BYTES)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path}: it is no HDF5 file that can be read: {error}; give a whole file that HDF5 wrote"
        ) from error


def dataset_names(file: Any, name: str, path: Path) -> list[str]:
    """Give the name of a dataset, or of all datasets directly inside the group of that name.

    Raises:
        DatasetError: There is neither; the message lists the datasets that are there.
    """
    h5py = needed("h5py", _WHY)
    found = file.get(name) if name else None
    if isinstance(found, h5py.Dataset):
        return [name]
    if isinstance(found, h5py.Group):
        inside = [f"{name.rstrip('/')}/{key}" for key, one in found.items() if isinstance(one, h5py.Dataset)]
        if inside:
            return inside
        raise DatasetError(f"{path}: the group {name!r} holds no dataset directly; {listed(file)}")
    raise DatasetError(f"{path}: there is no dataset {name!r}; {listed(file)}")


def listed(file: Any) -> str:
    """Say what datasets a file has."""
    found = [f"{name} {one.dtype}{list(one.shape or ())}" for name, one in datasets_of(file)]
    if not found:
        return "the file holds no dataset at all"
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"it has {', '.join(found[:_SHOWN])}{more}"


def datasets_of(file: Any) -> Iterator[tuple[str, Any]]:
    """Go through all datasets of a file by their names."""
    h5py = needed("h5py", _WHY)
    found: list[tuple[str, Any]] = []

    def look(name: str, one: Any) -> None:
        if isinstance(one, h5py.Dataset):
            found.append((name, one))

    file.visititems(look)
    yield from found


def check_filters(dataset: Any, path: Path) -> None:
    """Refuse a dataset whose chunks cannot be decompressed here, naming the filter.

    The package `hdf5plugin`, which brings most filters, is asked for them where it is installed.

    Raises:
        DatasetError: A filter is unknown to this HDF5 library, and the first row cannot be read without it.
    """
    unknown = _unknown_filters(dataset)
    if unknown and is_installed(_PLUGINS):
        __import__(_PLUGINS)  # registers its filters with the library
        unknown = _unknown_filters(dataset)
    if not unknown:
        return
    try:
        dataset[:1]  # a filter may be declared and yet not have been applied
    except (OSError, RuntimeError) as error:
        names = " and ".join(unknown)
        raise DatasetError(
            f"{path}: the dataset {dataset.name.lstrip('/')!r} is compressed by {names}, which this HDF5 library does "
            f"not know; install a package with that filter (pip install {_PLUGINS} has most), or write the file anew "
            "with gzip (h5repack -f GZIP=4)"
        ) from error


def filters_of(dataset: Any) -> list[str]:
    """Name the filters that a dataset's chunks go through."""
    return [_filter_name(number, name) for number, name in _filter_numbers(dataset)]


def _unknown_filters(dataset: Any) -> list[str]:
    h5z = needed("h5py", _WHY).h5z
    return [_filter_name(number, name) for number, name in _filter_numbers(dataset) if not h5z.filter_avail(number)]


def _filter_numbers(dataset: Any) -> list[tuple[int, str]]:
    plan = dataset.id.get_create_plist()
    found = (plan.get_filter(place) for place in range(plan.get_nfilters()))
    return [(int(number), bytes(name).decode("utf-8", "replace")) for number, _, _, name in found]


def _filter_name(number: int, name: str) -> str:
    known = _FILTERS.get(number) or name
    return f"filter {number} ({known})" if known else f"filter {number}"


__all__ = ["Hdf5Handle", "check_filters", "dataset_names", "datasets_of", "filters_of", "listed", "open_file"]
