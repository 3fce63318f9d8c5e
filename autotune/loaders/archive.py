"""Datasets over one tar, plain or compressed, and what writes such tars."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from autotune.data.archives._base import Progress, check_staged, sized
from autotune.data.archives.inflating import inflated_folder
from autotune.data.archives.tar_file import write_tar_file
from autotune.data.archives.tar_opening import OpenedTar, open_tar
from autotune.data.archives.tar_samples import PairFiles, SampleDecoder, pair_parts
from autotune.data.archives.tar_scan import TarLimits
from autotune.data.archives.tar_writer import stored_parts
from autotune.data.randomness import refuse_random
from autotune.data.stages import apart
from autotune.data.streaming import DEFAULT_BUFFER, StreamedArchive
from autotune.errors import ArchiveError, DatasetError
from autotune.spec.config import StoredForm

Transform = Callable[[Any], Any]
PathLike = str | os.PathLike[str]


class TarArchiveDataset(Dataset[Any]):
    """The samples of one tar, by number, with a length.

    Archives of `convert_dataset_to_tar` give the dataset's samples bit for bit; those of `create_tar_archive`
    give `(image, mask)` as `GeoTiffPairDataset` does: float32 `(bands, H, W)` and uint8 `(1, H, W)`. Of a
    foreign tar, files with one name up to the first dot, or of one name in several folders, are a sample:
    `(image, mask)` where there are two rasters of which one is named a mask, else a dict of decoded members.

    Nothing is extracted to a path and nothing is unpickled. A foreign compressed tar is inflated once into
    `cache_dir`; one of ours is read in place.

    Args:
        path: The tar: plain, or compressed by gz, xz or zst.
        transform: Applied to each sample.
        decode: Turns the tuple of a sample's original bytes into the sample; needed for archives with
            `stored="encoded"`, which give those bytes without it.
        cache_dir: Folder for inflated copies; None is `cache/tars` under autotune's home.
        limit_bytes: Most bytes of an inflated copy; None is nine tenths of the free disk.
        limit_ratio: Most bytes that one stored byte may inflate to, beyond the first 256 MiB.
        sample_limit_bytes: Most bytes of one sample.

    Raises:
        ArchiveError: The tar cannot be read, holds links or worse, or goes beyond the limits.
    """

    # What follows from the path: files that are open by now, and numbers of the process.
    unfingerprinted = ("_opened", "_decoder")

    def __init__(
        self,
        path: PathLike,
        transform: Transform | None = None,
        *,
        decode: Callable[[tuple[bytes, ...]], Any] | None = None,
        cache_dir: PathLike | None = None,
        limit_bytes: int | None = None,
        limit_ratio: float = TarLimits.ratio,
        sample_limit_bytes: int = TarLimits.sample_bytes,
    ) -> None:
        self.path = os.fspath(path)
        self.transform = transform
        self.decode_parts = decode  # where the fingerprint sees it
        limits = TarLimits(sample_bytes=sample_limit_bytes, inflated_bytes=limit_bytes, ratio=limit_ratio)
        self._opened = _open(path, cache_dir, limits)
        self._decoder = SampleDecoder(self._opened, decode)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What was stored beside the samples."""
        return self._opened.metadata

    def __len__(self) -> int:
        return len(self._opened.reader)

    def __getitem__(self, index: int) -> Any:
        sample = self._decoder[index]
        return sample if self.transform is None else self.transform(sample)

    def names(self, index: int) -> tuple[str, ...]:
        """Give the names of a sample's members; those of foreign samples without what they have in common."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be under {len(self)}, got {index}")
        return self._opened.names(index % len(self))

    def source_paths(self) -> list[str]:
        """Give the tar, so that archives and caches of this dataset notice its change."""
        return [self.path]

    def verify(self) -> None:
        """Read the whole archive and compare its checksum, where it has one.

        Raises:
            ArchiveDamagedError: Its bytes are not those that were written.
        """
        self._opened.verify()


class IterableTarArchiveDataset(StreamedArchive):
    """The samples of one tar from front to back, divided over workers and ranks.

    Each epoch gives every sample exactly once over all of them. The order depends on seed, epoch, number of
    workers and world size; `set_epoch` sets the epoch, and without it every epoch takes the next.

    Args:
        path: The tar, as `TarArchiveDataset` takes it.
        transform: Applied to each sample.
        shuffle_buffer: Samples that each worker mixes; 0 keeps the archive's order.
        seed: Seed of the shuffling.
        rank: Rank of this process; None asks `torch.distributed`.
        world_size: Number of ranks; given with `rank`.
        decode: As `TarArchiveDataset` takes it.
        cache_dir: Folder for inflated copies of foreign compressed tars.
        limits: How far the tar may go.
    """

    own_order = True

    def __init__(
        self,
        path: PathLike,
        transform: Transform | None = None,
        *,
        shuffle_buffer: int = DEFAULT_BUFFER,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        decode: Callable[[tuple[bytes, ...]], Any] | None = None,
        cache_dir: PathLike | None = None,
        limits: TarLimits | None = None,
    ) -> None:
        opened = _open(path, cache_dir, limits or TarLimits())
        decoder = SampleDecoder(opened, decode)
        buffer = max(1, shuffle_buffer)
        super().__init__(decoder, opened.reader, encoded=False, buffer=buffer, rank=rank, world_size=world_size)
        self.order_by(seed, shuffle_buffer > 0)
        self.path = os.fspath(path)
        self.transform = transform
        self.metadata = opened.metadata
        self._decoder = decoder

    def _decoded(self, stored: Any, index: int) -> Any:
        sample = self._decoder.decode_stored(stored, index)
        return sample if self.transform is None else self.transform(sample)


def create_tar_archive(
    image_paths: Sequence[PathLike],
    mask_paths: Sequence[PathLike],
    output_path: PathLike,
    compression: str | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Store pairs of image and mask as their original bytes, as `images/<name>` and `masks/<name>`.

    Args:
        image_paths: Images.
        mask_paths: Masks, one for each image, in the same order.
        output_path: The tar; it is there whole or not at all, with an index beside it (`<name>.index`).
        compression: `gz`, `xz`, `zst` or None.
        metadata: Plain values to keep; `TarArchiveDataset.metadata` gives them back.
        workers: Processes that read and compress; 0 works in this one.
        progress: Told how many pairs are stored, and of how many.

    Raises:
        DatasetError: There are not as many masks as images, or none.
        SampleError: A file cannot be read.
    """
    if len(image_paths) != len(mask_paths) or not len(image_paths):
        raise DatasetError(f"each image needs one mask, got {len(image_paths)} images and {len(mask_paths)} masks")
    path = Path(output_path)
    write_tar_file(
        path,
        PairFiles(image_paths, mask_paths),
        pair_parts,
        kind="pairs",
        compression=compression,
        metadata=metadata,
        workers=workers,
        progress=progress,
    )
    return path


def convert_dataset_to_tar(
    dataset: Dataset[Any],
    output_path: PathLike,
    compression: str | None = None,
    *,
    stored: StoredForm = "decoded",
    metadata: Mapping[str, Any] | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Store every sample of a map-style dataset exactly; of staged ones, as they are before `augment`.

    Args:
        dataset: The dataset.
        output_path: The tar; it is there whole or not at all, with an index beside it (`<name>.index`).
        compression: `gz`, `xz`, `zst` or None.
        stored: `decoded` samples, or what `read` gives of a staged dataset (`encoded`).
        metadata: Plain values to keep.
        workers: Processes that read and compress; 0 works in this one.
        progress: Told how many samples are stored, and of how many.

    Raises:
        ArchiveError: The dataset has no length, or a sample cannot be given back exactly.
        RandomSamplesError: Its samples are random, so storing them would freeze them.
    """
    if stored not in ("decoded", "encoded"):
        raise ArchiveError(f"stored must be 'decoded' or 'encoded', got {stored!r}")
    sized(dataset)
    check_staged(dataset, stored)
    refuse_random(dataset, "archived")
    path = Path(output_path)
    write_tar_file(
        path,
        apart(dataset),
        stored_parts(stored),
        kind=stored,
        compression=compression,
        metadata=metadata,
        workers=workers,
        progress=progress,
    )
    return path


def _open(path: PathLike, cache_dir: PathLike | None, limits: TarLimits) -> OpenedTar:
    return open_tar(Path(path), limits=limits, cache_folder=lambda: inflated_folder(cache_dir))
