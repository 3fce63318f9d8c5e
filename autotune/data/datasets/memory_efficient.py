"""Samples that stay in memory while there is room for them, and go when others need it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from autotune.data.caches.planning import available_bytes
from autotune.data.datasets.base import BaseDataset, existing_path
from autotune.data.datasets.broken import OnBroken
from autotune.data.datasets.class_folders import visible_files
from autotune.data.datasets.general_images import ImageDataset
from autotune.data.datasets.hdf5_arrays import HDF5Dataset
from autotune.data.datasets.images import IMAGE_SUFFIXES
from autotune.data.datasets.lru_cache import LruCache
from autotune.data.datasets.memory_room import MemoryRoom
from autotune.data.datasets.npy_files import NPY_SUFFIXES, NpyDataset
from autotune.data.datasets.texts import TEXT_SUFFIXES, TextDataset
from autotune.data.device_stage import DeviceTransform, device_transform_of
from autotune.data.fingerprint import source_fingerprint
from autotune.data.modes import LoadingMode
from autotune.data.stages import Raw
from autotune.errors import DatasetError, SampleError, SpecError

_DECIDED_BY_THE_SHARE = ("cache_size", "memory_limit_bytes")
_KEEP_NOTHING: Mapping[str, Any] = {"loading_mode": LoadingMode.LAZY, "cache_size": 0}


class MemoryEfficientDataset(BaseDataset):
    """Images, arrays, texts or HDF5 rows, kept in memory as far as `max_memory_usage` allows.

    Samples are kept after their first use while all processes together take no more than the share of the memory
    that was available when the dataset was made (within the limits of control groups), and while the rest of it stays
    available. When memory gets tight later, whoever takes it, those that were not used for longest go. Each process
    keeps its own; the workers of a loader divide the share, whichever loader it is (`MemoryRoom` tells how).

    What `data_path` holds decides what reads it, by the ends of the names: `ImageDataset`, `NpyDataset`,
    `TextDataset` or `HDF5Dataset`; samples are theirs. `EAGER` reads samples in the constructor until the share is
    used up; `LAZY` and `CACHED` keep each after its first use; `STREAMING` keeps nothing.

    Args:
        data_path: File or folder.
        max_memory_usage: Share of the available memory that samples may take, above 0 and at most 1.
        loading_mode: See above.
        kind: `images`, `npy`, `text` or `hdf5`; None goes by the ends of the names.
        transform: Applied to the first part of a sample, as the dataset that reads it says.
        target_transform: Applied to the second one.
        on_broken: What becomes of a sample that cannot be read.
        seed: Seed of what is random in the transforms.
        available: Tells the memory that is available.
        **settings: Further settings of the dataset that reads the files (`image_size`, `max_length`,
            `dataset_name`, ...), but for `cache_size` and `memory_limit_bytes`: the share decides what is kept.

    Attributes:
        device_transform: What the dataset that reads the files does to batches on the device; None without.

    Raises:
        DatasetError: Nothing that can be read is there, or files of several kinds are.
        SpecError: A setting breaks its rule.
    """

    unfingerprinted = ("max_memory_usage", "_inner", "_room")

    def __init__(
        self,
        data_path: str | os.PathLike[str],
        max_memory_usage: float = 0.8,
        loading_mode: LoadingMode | str = LoadingMode.LAZY,
        *,
        kind: str | None = None,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        on_broken: OnBroken = "raise",
        seed: int = 0,
        available: Callable[[], int] = available_bytes,
        **settings: Any,
    ) -> None:
        path = existing_path(data_path)
        self.kind = kind or _kind_of(path)
        if self.kind not in _READERS:
            raise SpecError(f"kind must be one of {', '.join(_READERS)}, got {kind!r}")
        useless = [name for name in _DECIDED_BY_THE_SHARE if name in settings]
        if useless:
            raise SpecError(
                f"max_memory_usage alone decides how much is kept, got {' and '.join(useless)} beside it; leave "
                f"{'them' if len(useless) > 1 else 'it'} out"
            )
        changes = {"transform": transform, "target_transform": target_transform}
        self._inner: BaseDataset = _READERS[self.kind](path, **{**settings, **changes, **_KEEP_NOTHING, "seed": seed})
        self.device_transform: DeviceTransform | None = device_transform_of(self._inner)
        self._room = MemoryRoom(max_memory_usage, available=available)
        self.max_memory_usage = max_memory_usage
        super().__init__(path, transform, target_transform, loading_mode, on_broken=on_broken, seed=seed)

    def __len__(self) -> int:
        return len(self._inner)

    @property
    def memory_limit(self) -> int:
        """Most bytes that samples may take, over all processes."""
        return self._room.limit_bytes

    def memory_stats(self) -> dict[str, int]:
        """Tell what this process keeps: samples, bytes, hits, misses and evictions, and the limit."""
        kept = self._recent
        if kept is None:
            return {"limit_bytes": self.memory_limit}
        return {
            "samples": len(kept),
            "used_bytes": kept.used_bytes,
            "limit_bytes": self.memory_limit,
            "hits": kept.hits,
            "misses": kept.misses,
            "evictions": kept.evictions,
        }

    def release(self) -> None:
        """Let go of every sample that this process keeps."""
        if self._recent is not None:
            self._recent.clear()

    def read(self, index: int) -> Raw:
        """Give the original bytes of one sample."""
        return self._inner.read(self._place(index))

    def decode(self, raw: Raw) -> Any:
        """Turn those bytes into a sample before the transforms."""
        return self._inner.decode(raw)

    def load(self, index: int) -> Any:
        """Read one sample in the form in which it is kept."""
        return self._inner.load(index)

    def finish(self, kept: Any) -> Any:
        """Make a sample of that form, which is the caller's own."""
        return self._inner.finish(kept)

    def augment(self, sample: Any, generator: torch.Generator) -> Any:
        """Apply the transforms as the dataset that reads the files does."""
        return self._inner.augment(sample, generator)

    def path_of(self, index: int) -> str:
        """Give the path of the file behind a sample."""
        return self._inner.path_of(self._place(index))

    def source_paths(self) -> Iterator[str]:
        """Give every file behind the dataset."""
        return iter(self._inner.source_paths())

    def sample_structure(self) -> str | None:
        """Declare the structure of a sample, where the dataset that reads the files does."""
        declare = getattr(self._inner, "sample_structure", None)
        return None if declare is None else declare()

    def fingerprint(self) -> str | None:
        """Give what changes with the samples: the fingerprint of the dataset that reads the files."""
        inner = source_fingerprint(self._inner)
        return None if inner is None else f"{inner} {self.on_broken}"

    def _check_transform(self, given: Callable[[Any], Any] | None) -> None:
        """Hand one that takes the place of another to the dataset that applies it."""
        if "_transform" in vars(self):
            self._inner.transform = given

    def _load_data(self) -> None:
        if self.loading_mode is LoadingMode.STREAMING:
            return
        self._recent = LruCache(room=self._room)
        if self.loading_mode is LoadingMode.EAGER:
            self._fill(self._recent)

    def _fill(self, kept: LruCache) -> None:
        """Read samples until one has no room beside the others."""
        for index in range(len(self)):
            try:
                self.base_sample(index)
            except SampleError:
                if self.on_broken != "skip":
                    raise
            if kept.evictions or (index not in kept and index not in self._broken):
                return


def _kind_of(path: Path) -> str:
    if path.is_file():
        found = _KINDS.get(path.suffix.lower())
        if found is None:
            raise DatasetError(f"{path}: nothing here reads files that end in {path.suffix!r} ({', '.join(_KINDS)})")
        return found
    kinds = Counter(_KINDS[one.suffix.lower()] for one in visible_files(path, _KINDS))
    if not kinds:
        raise DatasetError(f"there is nothing under {path} that can be read ({', '.join(_KINDS)})")
    if len(kinds) > 1:
        told = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items(), key=str))
        raise DatasetError(f"the files of a folder are of one kind, got {told} under {path}; choose by kind=")
    return next(iter(kinds))


_READERS: Mapping[str, Callable[..., BaseDataset]] = {
    "images": ImageDataset,
    "npy": NpyDataset,
    "text": TextDataset,
    "hdf5": HDF5Dataset,
}
_KINDS: Mapping[str, str] = {
    **dict.fromkeys(TEXT_SUFFIXES, "text"),
    **dict.fromkeys(IMAGE_SUFFIXES, "images"),
    **dict.fromkeys(NPY_SUFFIXES, "npy"),
    **dict.fromkeys((".h5", ".hdf5", ".he5"), "hdf5"),
}

__all__ = ["MemoryEfficientDataset"]
