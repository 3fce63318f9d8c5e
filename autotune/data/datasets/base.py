"""The base of the general datasets: loading modes, transforms, and what becomes of broken files."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypedDict

import torch
from torch.utils.data import Dataset, Subset

from autotune.data.caches._base import ABSENT, CachedDataset
from autotune.data.datasets.broken import BROKEN_POLICIES, BrokenSamples, NoSamples, OnBroken
from autotune.data.datasets.file_reading import naming
from autotune.data.datasets.lru_cache import LruCache, fresh_copy
from autotune.data.datasets.memory_room import MemoryRoom
from autotune.data.datasets.source_stream import LEFT_OUT, StreamedSource
from autotune.data.modes import LoadingMode, load_in_mode
from autotune.data.randomness import seeded_alone
from autotune.data.stages import StagedDataset, place_of
from autotune.data.transforms.augmentation import ImageAugmentation, is_augmentation
from autotune.errors import CapacityError, DatasetError, SampleError, SpecError
from autotune.units import format_bytes

_log = logging.getLogger(__name__)

_RECENT_SHARE = 0.8
"""Share of the available memory that samples kept by `cache_size` take at most, over all workers."""
_DONE = {"skip": "left out", "substitute": "replaced by the next one that can be read"}


class KeepingSettings(TypedDict, total=False):
    """Settings of `BaseDataset` that datasets of one kind of files take by name and hand on as they are.

    Attributes:
        transform: Applied to the first part of a sample; None by default.
        target_transform: Applied to the second one; None by default.
        cache_size: Samples that `LAZY` keeps in each process; 0 by default.
        on_broken: What becomes of a sample that cannot be read; `raise` by default.
        memory_limit_bytes: Most bytes that `EAGER` and `CACHED` keep; None, what is available, by default.
        seed: Seed of what is random in the transforms; 0 by default.
    """

    transform: Callable[[Any], Any] | None
    target_transform: Callable[[Any], Any] | None
    cache_size: int
    on_broken: OnBroken
    memory_limit_bytes: int | None
    seed: int


class BaseDataset(StagedDataset):
    """A dataset of files in one of the loading modes, with transforms that run on what is kept.

    Subclasses have `__len__`, `read` and `decode`, and set what these need before this constructor runs. `read` and
    `decode` are deterministic, and what they give is what modes, caches and archives keep; `transform` and
    `target_transform` run afterwards on the first two parts of a sample, anew each time, with random numbers (of
    Python, NumPy and torch) that belong to seed, epoch and index, and so are the same at every worker count and in
    every thread. A `transform` of Albumentations, which has a generator of its own, is given as it is: it gets the
    image as an array, and its numbers belong to seed, epoch and index too. Those of one that is called inside a
    function, and of whatever else keeps a generator, do not.

    Loading modes: `LAZY` reads a sample when it is asked for and keeps the `cache_size` that were used last, in each
    process; `EAGER` reads all of them in the constructor, and `CACHED` each at its first use, into memory that all
    workers share, as far as there is room, be it for none; `STREAMING` keeps nothing, and `loaded()` gives the samples
    from front to back, each worker its own range.

    Broken files: with `on_broken="raise"` a sample that cannot be read is a `SampleError` with its path.
    `substitute` gives the next sample that can be read, in the order of the dataset and round its end, so lengths
    and places stay. `skip` leaves it out where a batch is read: the length stays, a batch may be smaller, and an
    order is that of the samples that are left; asked for by its own number it is an error. Both count it in
    `broken_files` and log it once.

    Args:
        data_path: File or folder.
        transform: Applied to the first part of a sample: a function, or a transform of Albumentations.
        target_transform: Applied to the second one.
        loading_mode: See above.
        cache_size: Samples that `LAZY` keeps in each process, the ones used last; 0 keeps none.
        on_broken: See above.
        memory_limit_bytes: Most bytes that `EAGER` and `CACHED` keep; None is what the machine has available.
        seed: Seed of what is random in the transforms.

    Raises:
        DatasetError: There is nothing at `data_path`.
        SpecError: A setting breaks its rule.
    """

    unfingerprinted: tuple[str, ...] = (
        "cache_size", "loading_mode", "memory_limit_bytes", "target_transform",
        "_broken", "_memory", "_recent", "_transform",
    )  # fmt: skip

    def __init__(
        self,
        data_path: str | os.PathLike[str],
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        loading_mode: LoadingMode | str = LoadingMode.LAZY,
        *,
        cache_size: int = 0,
        on_broken: OnBroken = "raise",
        memory_limit_bytes: int | None = None,
        seed: int = 0,
    ) -> None:
        StagedDataset.__init__(self, seed=seed)  # by name, as a subclass may have a second base
        if on_broken not in BROKEN_POLICIES:
            raise SpecError(f"on_broken must be one of {', '.join(BROKEN_POLICIES)}, got {on_broken!r}")
        if isinstance(cache_size, bool) or not isinstance(cache_size, int) or cache_size < 0:
            raise SpecError(f"cache_size is a number of samples, at least 0, got {cache_size!r}")
        self.data_path = existing_path(data_path)
        self.transform = transform
        self.target_transform = target_transform
        self.loading_mode = _mode(loading_mode)
        self.cache_size = cache_size
        self.on_broken: OnBroken = on_broken
        self.memory_limit_bytes = memory_limit_bytes
        # With another policy the original bytes of a sample may be no sample at all: only whole ones are stored.
        self.staged = on_broken == "raise"
        self._done = _DONE.get(on_broken, "")
        self._broken = BrokenSamples(len(self))
        self._recent: LruCache | None = None
        self._memory: CachedDataset | None = None
        self._load_data()

    def __len__(self) -> int:
        """Give the number of samples, broken ones included."""
        raise NotImplementedError

    def path_of(self, index: int) -> str:  # noqa: ARG002  # for subclasses
        """Give the path of the file behind a sample."""
        return str(self.data_path)

    def source_paths(self) -> Iterator[str]:
        """Give every file behind the dataset."""
        if self.data_path.is_file():
            yield str(self.data_path)
        else:
            yield from (str(path) for path in sorted(self.data_path.rglob("*")) if path.is_file())

    @property
    def broken_files(self) -> tuple[str, ...]:
        """Files behind the samples that could not be read so far, in any worker."""
        return tuple(dict.fromkeys(self.path_of(index) for index in self._broken.indices()))

    @property
    def broken_samples(self) -> tuple[int, ...]:
        """Numbers of the samples that could not be read so far, in any worker."""
        return tuple(self._broken.indices())

    @property
    def transform(self) -> Callable[[Any], Any] | None:
        """What is applied to the first part of a sample; another one may take its place."""
        return self._transform

    @transform.setter
    def transform(self, given: Callable[[Any], Any] | None) -> None:
        self._check_transform(given)
        self._transform = ImageAugmentation(given) if is_augmentation(given) else given

    def _check_transform(self, given: Callable[[Any], Any] | None) -> None:
        """Refuse one that would change what is stored, where stored samples depend on it."""

    @property
    def augments_samples(self) -> bool:
        """Whether something is applied to samples after they were kept."""
        return self.transform is not None or self.target_transform is not None

    def augment(self, sample: Any, generator: torch.Generator) -> Any:
        """Apply the transforms; what is random in them is drawn from the generator."""
        seed = int(torch.randint(2**31, (), generator=generator))
        with seeded_alone(seed):
            return self.transformed(sample)

    def transformed(self, sample: Any) -> Any:
        """Apply `transform` to the first part of a sample and `target_transform` to the second."""
        if not isinstance(sample, tuple):
            return sample if self.transform is None else self.transform(sample)
        parts = list(sample)
        for place, change in enumerate((self.transform, self.target_transform)):
            if change is not None and place < len(parts):
                parts[place] = change(parts[place])
        return tuple(parts)

    def augment_sample(self, sample: Any, index: int) -> Any:
        """Apply the transforms, where there are some, as they come out in the current epoch."""
        if sample is LEFT_OUT or not self.augments_samples:
            return sample
        return super().augment_sample(sample, index)

    def load(self, index: int) -> Any:
        """Read one sample in the form in which `cache_size` keeps it."""
        return self.decode(self.read(index))

    def finish(self, kept: Any) -> Any:
        """Make a sample of that form, which is the caller's own."""
        return kept

    def base_sample(self, index: int) -> Any:
        """Give one sample before the transforms: from memory where it is kept, else from its file.

        Raises:
            SampleError: It cannot be read, and is not to be replaced.
        """
        place = self._place(index)
        try:
            return self._kept_or_read(place)
        except SampleError as error:
            if self.on_broken == "raise":
                raise
            self._broken.add(place, error, self._done)
            if self.on_broken == "skip":
                raise
        return self._substitute(place)

    def base_samples(self, indices: Sequence[int]) -> list[Any]:
        """Give the samples of a batch before the transforms, at once where they are kept so."""
        if self._memory is not None and self.on_broken != "skip":
            return self._memory.base_samples(indices)
        return [self.base_sample(index) for index in indices]

    def __getitem__(self, index: int) -> Any:
        place = self._place(index)
        return self.augment_sample(self.base_sample(place), place)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Give the samples of a batch; with `on_broken="skip"` those that can be read."""
        places = [self._place(index) for index in indices]
        if self.on_broken == "skip":
            found = list(self._readable(places))
            samples = [self.augment_sample(sample, place) for place, sample in found]
            return samples or NoSamples([self.path_of(place) for place in places])
        samples = self.base_samples(places)
        if not self.augments_samples:
            return samples
        return [self.augment_sample(sample, place) for sample, place in zip(samples, places, strict=True)]

    def readable(self, progress: Callable[[int, int], None] | None = None) -> Subset[Any]:
        """Read every sample once and give those that can be read, as a dataset that any archive or cache takes.

        Args:
            progress: Told how many samples were read, and of how many.
        """
        places = []
        for index in range(len(self)):
            try:
                self._kept_or_read(index)
                places.append(index)
            except SampleError as error:
                self._broken.add(index, error, "left out")
            if progress is not None:
                progress(index + 1, len(self))
        return Subset(self, places)

    def loaded(self, archive_root: Path | None = None) -> Dataset[Any]:
        """Give what a loader iterates in this loading mode: this dataset itself, or a stream of it.

        Args:
            archive_root: Folder of archives: `STREAMING` then reads a tar there, built first where it is missing,
                instead of the files themselves.

        Raises:
            ArchiveError: The archive cannot be built or read.
        """
        if self.loading_mode is not LoadingMode.STREAMING:
            return self
        if archive_root is None:
            return StreamedSource(self)
        return load_in_mode(self, LoadingMode.STREAMING, archive_root=archive_root)

    def unkept(self) -> Self:
        """Give a copy that reads every sample from its file."""
        plain = copy.copy(self)
        plain.loading_mode = LoadingMode.LAZY
        plain._recent = plain._memory = None  # noqa: SLF001  # its own class
        return plain

    def _load_data(self) -> None:
        """Set up what the loading mode keeps; `EAGER` reads everything now."""
        if self.loading_mode is LoadingMode.LAZY and self.cache_size:
            self._recent = LruCache(self.cache_size, room=MemoryRoom(_RECENT_SHARE))
        elif self.loading_mode in (LoadingMode.EAGER, LoadingMode.CACHED):
            source = self.unkept()
            if self.on_broken == "skip":  # what is left out needs something in its place while memory is filled
                source.on_broken = "substitute"
            try:
                cached = load_in_mode(source, self.loading_mode, limit_bytes=self.memory_limit_bytes)
            except CapacityError as error:  # not even one sample fits
                _log.warning(
                    "%s: nothing is kept, as one sample needs %s and %s may be used; each is read when it is asked for",
                    self.data_path, format_bytes(error.needed_bytes), format_bytes(error.available_bytes),
                )  # fmt: skip
                return
            self._memory = cached if isinstance(cached, CachedDataset) else None

    def _kept_or_read(self, index: int) -> Any:
        if self._memory is not None:
            sample = self._memory.base_sample(index)
            if self.on_broken == "skip" and index in self._broken:
                raise SampleError("the sample is broken and left out", self.path_of(index))
            return sample
        if self._recent is None:
            return self.finish(self._named(index))
        kept = self._recent.get(index)
        if kept is ABSENT:
            kept = self._named(index)
            self._recent.put(index, kept)
        return self.finish(fresh_copy(kept))

    def _named(self, index: int) -> Any:
        """Read one sample; what is wrong with it names the file."""
        path = self.path_of(index)
        with naming(path):
            try:
                return self.load(index)
            except OSError as error:
                raise SampleError(f"it cannot be read: {error}", path) from error

    def _substitute(self, index: int) -> Any:
        for step in range(1, len(self)):
            place = (index + step) % len(self)
            try:
                return self._kept_or_read(place)
            except SampleError as error:
                self._broken.add(place, error, self._done)
        raise SampleError(f"no sample of {len(self):,} can be read, the last one neither", self.path_of(index))

    def _readable(self, places: Sequence[int]) -> Iterator[tuple[int, Any]]:
        for place in places:
            try:
                yield place, self.base_sample(place)
            except SampleError:  # counted and logged
                continue

    def _place(self, index: int) -> int:
        return place_of(index, len(self))


def existing_path(path: str | os.PathLike[str]) -> Path:
    """Give a path that exists, absolute, as files are opened later and the current folder may be another one then.

    Raises:
        DatasetError: There is nothing.
    """
    found = Path(path).expanduser().absolute()
    if not found.exists():
        raise DatasetError(f"data_path must exist, got {os.fspath(path)!r} in {Path.cwd()}")
    return found


def _mode(mode: LoadingMode | str) -> LoadingMode:
    try:
        return LoadingMode(mode)
    except ValueError as error:
        known = ", ".join(one.value for one in LoadingMode)
        raise SpecError(f"loading_mode must be one of {known}, got {mode!r}") from error


__all__ = ["BaseDataset", "KeepingSettings", "LoadingMode", "OnBroken"]
