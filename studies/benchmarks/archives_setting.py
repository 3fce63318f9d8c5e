"""What every measurement of the archives benchmark shares, and what a row is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from archives_workloads import WORKLOADS, Place
from torch.utils.data import Dataset

from autotune.data.stages import leaves_of

Family = Literal["ours", "package", "limit"]
Form = tuple[str, str]
"""Format and stored form."""

FILES = "files"
BOUND = "bound: batches gathered from memory"
SCANNED = "seed 0: tar scanned for every sample"
SCANNED_SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every measurement of one run shares."""

    workload: str
    samples: int
    batch: int
    place: Place
    seconds: float
    seed: int

    def source(self) -> Dataset[Any]:
        """Give the workload's dataset, as new."""
        return WORKLOADS[self.workload].make(self.place, self.samples)

    def archive(self, form: tuple[str, str]) -> Path:
        """Give the folder of an archive of ours."""
        return self.place.work / "archives" / "-".join(form)

    def plain(self, name: str, stored: str) -> Path:
        """Give the folder of what a package wrote."""
        return self.place.work / "plain" / f"{name}-{stored}"

    @property
    def leaves(self) -> list[Path]:
        """The decoded samples, as one `.npy` for each part: those of our archive."""
        return sorted(self.archive(("npy", "decoded")).glob("leaf_*.npy"))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to read the samples.

    Attributes:
        name: What the table calls it.
        family: Whose it is.
        loader: Makes the loader, for a setting and a number of workers; None where the rivals' Python does it.
        files: Gives the files that are read; none at all are read where it is None.
        against: Row of the package that defines the format.
        most_workers: Largest number of workers that makes sense.
        samples: Samples of an epoch, where it is not the whole set.
        rival: What the rivals' script calls it.
    """

    name: str
    family: Family
    loader: Callable[[Setting, int], Iterable[Any]] | None = None
    files: Callable[[Setting], list[str]] | None = None
    against: str | None = None
    most_workers: int | None = None
    samples: int | None = None
    rival: str | None = None


@dataclass(frozen=True, kw_only=True)
class Written:
    """Something that a package writes, to compare seconds and bytes with."""

    name: str
    stored: str
    write: Callable[[Dataset[Any], Path, str], None]


def installed(package: str | None) -> bool:
    """Tell whether a package is there, where one is needed."""
    return package is None or find_spec(package) is not None


def scanned_samples(setting: Setting) -> int:
    """Give how many samples are read where each one costs a scan of the archive."""
    return min(SCANNED_SAMPLES, setting.samples)


def cache_folder(setting: Setting) -> Path:
    """Give the folder of the disk cache."""
    return setting.place.work / "cache"


def source_files(setting: Setting) -> list[str]:
    """Give the files behind the workload's dataset."""
    return sorted({str(path) for leaf in leaves_of(setting.source()) for path in leaf.source_paths()})


def archive_files(form: tuple[str, str]) -> Callable[[Setting], list[str]]:
    """Give what lists the files of an archive of ours."""
    return lambda setting: [str(path) for path in sorted(setting.archive(form).rglob("*")) if path.is_file()]


def plain_files(name: str, stored: str) -> Callable[[Setting], list[str]]:
    """Give what lists the files that a package wrote."""
    return lambda setting: [str(path) for path in sorted(setting.plain(name, stored).rglob("*")) if path.is_file()]
