"""Rows of datasets in an HDF5 file as samples, and an order that reads each chunk once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch.utils.data import Sampler

from autotune.data.datasets.base import BaseDataset, KeepingSettings, existing_path
from autotune.data.datasets.hdf5_files import dataset_names, listed, open_file
from autotune.data.datasets.hdf5_rows import RowsFacts, RowsReader
from autotune.data.modes import LoadingMode
from autotune.data.stages import Raw
from autotune.errors import DatasetError, SpecError


class HDF5Dataset(BaseDataset):
    """The rows of one dataset of an HDF5 file, or of several of one length.

    A sample is row number `index` along the first axis: a tensor of the dataset's type, or `str` of a dataset of
    text. With several names (a list, or the name of a group) it is a dict of them by name; with `target_name` it is
    `(row, target)`, and the target is left out of the group that it lies in. Rows of varying length become tensors of
    varying length.

    The file is opened in each process at its first use. Compressed rows are read a chunk at a time, so that rows
    which follow each other decompress it once; `ChunkShuffleSampler` shuffles in an order that keeps it so.

    Args:
        data_path: The file.
        dataset_name: Name of the dataset (`group/name`), of a group, or several names.
        target_name: Name of the dataset of targets; None gives samples without.
        loading_mode: How samples come into memory.
        **settings: Settings of `BaseDataset`: `transform` (of the row), `target_transform`, `cache_size`, `on_broken`,
            `memory_limit_bytes` and `seed`.

    Raises:
        DatasetError: The file is no HDF5, has no such dataset (those that it has are listed), their lengths differ,
            or a chunk is compressed by an unknown filter.
        SpecError: A dataset is named twice, be it as a row and as the target.
        MissingExtraError: `h5py` is not installed.
    """

    unfingerprinted = ("_reader",)

    def __init__(
        self,
        data_path: str | os.PathLike[str],
        dataset_name: str | Sequence[str] = "data",
        target_name: str | None = None,
        loading_mode: LoadingMode | str = LoadingMode.LAZY,
        **settings: Unpack[KeepingSettings],
    ) -> None:
        path = existing_path(data_path)
        if path.is_dir():
            raise DatasetError(f"data_path must be one HDF5 file, got the folder {path}; join several by ConcatDataset")
        wanted = [dataset_name] if isinstance(dataset_name, str) else list(dataset_name)
        if not wanted:
            raise SpecError("dataset_name is the name of a dataset, or several, got none")
        self.dataset_name = dataset_name if isinstance(dataset_name, str) else tuple(dataset_name)
        self.target_name = target_name
        with open_file(path) as file:
            names = _names(file, wanted, target_name, path)
            self._facts = tuple(RowsFacts.of(file[name], name, path) for name in names)
        self._single = len(names) == 1 + (target_name is not None)
        self._check_lengths(str(path))
        self._reader = RowsReader(path, self._facts)
        super().__init__(path, loading_mode=loading_mode, **settings)

    def __len__(self) -> int:
        return self._facts[0].count

    @property
    def chunk_rows(self) -> int:
        """Rows of one chunk: of the largest one where there are several datasets."""
        return max(facts.chunk_rows for facts in self._facts)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the datasets that make up a sample, the target's last."""
        return tuple(facts.name for facts in self._facts)

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the stored parts of a sample."""
        return tuple(f"part{number}.bin" for number in range(len(self._facts)))

    def read(self, index: int) -> Raw:
        """Give the bytes of one row, those of each dataset."""
        return self._reader.row(self._place(index))

    def decode(self, raw: Raw) -> Any:
        """Turn those bytes into a sample before the transforms."""
        values = [facts.from_bytes(bytes(data)) for facts, data in zip(self._facts, raw, strict=True)]
        if self.target_name is None:
            return values[0] if self._single else dict(zip(self.names, values, strict=True))
        row = values[0] if self._single else dict(zip(self.names[:-1], values[:-1], strict=True))
        return row, values[-1]

    def base_samples(self, indices: Sequence[int]) -> list[Any]:
        """Give the samples of a batch before the transforms; rows of one chunk are read together."""
        if self._memory is not None and self.on_broken != "skip":
            return self._memory.base_samples(indices)
        samples: list[Any] = [None] * len(indices)
        for place in sorted(range(len(indices)), key=indices.__getitem__):
            samples[place] = self.base_sample(indices[place])
        return samples

    def close(self) -> None:
        """Close the file in this process; the next sample opens it again."""
        self._reader.close()

    def sample_structure(self) -> str | None:
        """Declare the structure of a sample, where rows have one shape."""
        parts = [facts.structure() for facts in self._facts]
        if self.augments_samples or None in parts:
            return None
        rows = parts[:-1] if self.target_name is not None else parts
        named = ", ".join(f"{name}: {part}" for name, part in zip(self.names, rows, strict=False))
        row = str(rows[0]) if self._single else "{" + named + "}"
        return row if self.target_name is None else f"({row}, {parts[-1]})"

    def _check_lengths(self, path: str) -> None:
        counts = {facts.count for facts in self._facts}
        if len(counts) > 1:
            told = ", ".join(f"{facts.name} {facts.count:,}" for facts in self._facts)
            raise DatasetError(f"{path}: datasets that make up a sample have one length, got {told} rows")
        if counts == {0}:
            raise DatasetError(f"{path}: there must be rows, got none in {', '.join(self.names)}")


def _names(file: Any, wanted: Sequence[str], target_name: str | None, path: Path) -> list[str]:
    """Give the names of the datasets that make up a sample, the target's last."""
    targets = [] if target_name is None else dataset_names(file, target_name, path)
    if len(targets) > 1:
        raise DatasetError(f"target_name is the name of one dataset, got a group with {', '.join(targets)}")
    names: list[str] = []
    for one in wanted:
        found = dataset_names(file, one, path)
        # Compared as what they name: the group may hold the target by a link.
        names += found if found == [one] else [name for name in found if all(file[name] != file[t] for t in targets)]
    if not names:
        raise DatasetError(f"{path}: {', '.join(wanted)} holds nothing but the target {targets[0]!r}; {listed(file)}")
    named = Counter("/".join(part for part in name.split("/") if part not in ("", ".")) for name in names + targets)
    twice = [name for name, count in named.items() if count > 1]
    if twice:
        raise SpecError(
            f"each dataset is named once, as a row or as the target, got {', '.join(twice)} twice; leave one out"
        )
    return names + targets


class ChunkShuffleSampler(Sampler[int]):
    """Shuffles the chunks of a dataset and the rows of some chunks together, so that each chunk is read once.

    Every epoch gives each index exactly once, in an order of its own that seed and epoch alone decide; it mixes less
    than a full shuffle, the more so the fewer chunks are mixed. With workers a batch is read by one of them, so keep
    batches at least as large as a chunk there, or mix few chunks.

    Args:
        dataset: A dataset with `chunk_rows`, as `HDF5Dataset`.
        chunks: Chunks that are mixed together.
        seed: Seed of the order.

    Raises:
        SpecError: `chunks` is under 1.
    """

    def __init__(self, dataset: Any, *, chunks: int = 8, seed: int = 0) -> None:
        if chunks < 1:
            raise SpecError(f"chunks must be at least 1, got {chunks}")
        self._count = len(dataset)
        self._rows = int(dataset.chunk_rows)
        self._chunks = chunks
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next order belongs to."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + self._epoch) % 2**63)
        self._epoch += 1
        return self._ordered(generator)

    def _ordered(self, generator: torch.Generator) -> Iterator[int]:
        starts = torch.arange(0, self._count, self._rows)
        starts = starts[torch.randperm(len(starts), generator=generator)]
        for some in starts.split(self._chunks):  # type: ignore[no-untyped-call]
            rows = torch.cat([torch.arange(s, min(s + self._rows, self._count)) for s in some.tolist()])
            yield from rows[torch.randperm(len(rows), generator=generator)].tolist()


__all__ = ["ChunkShuffleSampler", "HDF5Dataset"]
