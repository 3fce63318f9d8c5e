"""Any dataset as batches on the device: `EfficientDataLoader`, and factories for images, texts and HDF5."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from autotune.data.build import make_loader
from autotune.data.caches.planning import available_bytes
from autotune.data.datasets.general_images import ImageDataset
from autotune.data.datasets.hdf5_arrays import HDF5Dataset
from autotune.data.datasets.texts import TextDataset, Tokenizer
from autotune.data.datasets.windows import Size
from autotune.data.device_stage import device_transform_of
from autotune.data.distributed_epoch_sampler import DistributedEpochSampler
from autotune.data.stages import begin_epoch
from autotune.data.whole_batch import collate_whole
from autotune.loaders.collating import NO_BATCH, CustomCollateFn, SkippingCollate
from autotune.loaders.general_bottom import broken_files, leaves_out, leaving_out, loaded
from autotune.loaders.general_config import DataLoaderConfig
from autotune.loaders.in_flight import InFlight, settled
from autotune.loaders.monitors import DataLoaderPerformanceMonitor
from autotune.loaders.transfer import Transfer, device_or_cpu
from autotune.resolve.best import best_config, best_loader
from autotune.resolve.distributed import divided_stream, seed_without_group, share_of
from autotune.spec.config import DEFAULT_PREFETCH_FACTOR
from autotune.units import format_seconds

_logger = logging.getLogger(__name__)

DataPath = str | os.PathLike[str]


class EfficientDataLoader:
    """Gives the batches of a dataset on the device that the configuration names.

    A dataset with loading modes is loaded in its mode, `STREAMING` as a stream; broken samples that it leaves out
    make a batch smaller, and a batch of which nothing is left does not come. Each pass over the loader is an epoch
    of its own for what is random in the dataset, inside `Subset` and `ConcatDataset` too: `set_epoch` says which one
    comes next. In order, until `set_epoch` and without a sampler of the caller's own, it leaves the epoch to a loader
    that shuffles the same samples, as that of training is while validation runs. A dataset's `device_transform` has
    been run on every batch, on the device; `dataloader` gives batches before it.

    In a process group, or started by `torchrun`, each process gets its share of the samples, whatever `num_workers`
    says; a sampler of the caller's own, and an iterable dataset but a stream of ours, divide by themselves. The
    shared order is that of `generator_seed`, else of 0, or of what rank 0 draws where the configuration is resolved.

    Args:
        dataset: A map-style or iterable dataset.
        config: The configuration; None is `DataLoaderConfig()`.
        archive_root: Folder of archives, for a dataset in the mode `STREAMING` that is to be read from one.
        home: Home folder of the registry, for `num_workers=None`.
        available: Tells the memory that is available, for `memory_efficient`.
        rank: Number of this process among those that divide the samples; None is that of the process group, else
            what `torchrun` says.
        world_size: How many divide them, given with `rank`; 1 gives this process all samples.
        environ: Environment variables.

    Attributes:
        dataset: The dataset.
        config: The configuration.
        device: Where batches arrive.
        dataloader: The DataLoader behind it, whose batches are on the host.
        performance_monitor: What `get_stats` asks; None without monitoring.
        logger: Where epochs are logged.

    Raises:
        SpecError: A setting breaks its rule, or parts of a `ConcatDataset` differ in their `device_transform`.
        CapacityError: Not even one batch fits into `max_memory_usage`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        config: DataLoaderConfig | None = None,
        *,
        archive_root: Path | None = None,
        home: DataPath | None = None,
        available: Callable[[], int] = available_bytes,
        rank: int | None = None,
        world_size: int | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.config = DataLoaderConfig() if config is None else config
        self.config.check()
        self.dataset = dataset
        self.logger = _logger
        self.device = device_or_cpu(self.config.pin_memory_device)
        self._transfer = Transfer(self.device, non_blocking=self.config.non_blocking)
        self._device_transform = device_transform_of(dataset)
        self._resolving: dict[str, Any] = {
            "home": None if home is None else Path(home), "rank": rank, "world_size": world_size, "environ": environ,
        }  # fmt: skip
        self._share = share_of(rank, world_size, environ=environ)
        self._available = available
        self._epoch = 0
        self._set_by_caller = False
        self._leaves_out = leaves_out(dataset)
        iterated = loaded(dataset, archive_root)
        self.dataloader: DataLoader[Any] = self._create_dataloader(
            leaving_out(iterated) if self._leaves_out else iterated
        )
        self.performance_monitor = (
            DataLoaderPerformanceMonitor(batch_size=self.config.samples_in_batch)
            if self.config.enable_monitoring
            else None
        )

    @property
    def batch_size(self) -> int | None:
        """Samples in a batch; None where a batch sampler decides."""
        return self.dataloader.batch_size

    @property
    def num_workers(self) -> int:
        """Worker processes, as they were settled."""
        return self.dataloader.num_workers

    @property
    def prefetch_factor(self) -> int | None:
        """Batches that each worker keeps ready, as they were settled; None without workers."""
        return self.dataloader.prefetch_factor

    @property
    def persistent_workers(self) -> bool:
        """Whether workers stay from epoch to epoch."""
        return self.dataloader.persistent_workers

    def __len__(self) -> int:
        """Give the number of batches of an epoch in which no sample is broken."""
        return len(self.dataloader)

    def __iter__(self) -> Iterator[Any]:
        epoch = self._epoch
        self._epoch += 1
        ordered = self.config.is_ordered
        if self._set_by_caller or (self.config.shuffle and not ordered):
            self._set_samplers(epoch)
        leads = self._set_by_caller or self.config.shuffle or ordered
        begin_epoch(self.dataloader.dataset, epoch, steered=True, leads=leads)
        batches: Iterable[Any] = self._transfer.over(filter(_is_batch, self.dataloader))
        if self._device_transform is not None:
            batches = map(self._device_transform, batches)
        if self.performance_monitor is not None:
            batches = self.performance_monitor.watch(batches)
        return self._logged(batches, epoch) if self.config.log_loading_stats else iter(batches)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch that comes next, for the dataset and for a sampler that takes one.

        The order of one process comes from a generator, as that of torch's loader does, and goes on as it would; that
        of ranks, of a stream and of samplers with `set_epoch` is the epoch's.
        """
        self._epoch = epoch
        self._set_by_caller = True
        self._set_samplers(epoch)

    def _set_samplers(self, epoch: int) -> None:
        batches: Any = self.dataloader.batch_sampler
        for sampler in (batches, getattr(batches, "sampler", None), self.dataloader.sampler):
            enter = getattr(sampler, "set_epoch", None)
            if callable(enter):
                enter(epoch)

    def get_stats(self) -> dict[str, float]:
        """Give figures of the current or last epoch; empty without monitoring or before the first batch.

        Besides what `DataLoaderPerformanceMonitor.get_stats` tells there is `broken_files`, of datasets that count
        them.
        """
        stats = {} if self.performance_monitor is None else self.performance_monitor.get_stats()
        broken = broken_files(self.dataset)
        return {**stats, "broken_files": len(broken)} if stats and broken is not None else stats

    def _create_dataloader(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        config, iterable = self.config, isinstance(dataset, IterableDataset)
        if config.is_ordered and iterable:
            _logger.warning("an iterable dataset has its own order, so the samplers of the configuration are not asked")
        arguments = config.order_arguments(iterable=iterable)
        collate = self._collate()
        if config.num_workers is None and not iterable:
            return self._resolved(dataset, arguments, collate)
        divided = self._divided(dataset)
        workers = self._workers()
        loader: DataLoader[Any] = make_loader(
            dataset,
            self._worker_arguments(workers),
            shuffle=config.shuffle and not config.is_ordered and "sampler" not in divided,
            seed=config.generator_seed,
            collate_fn=collate or collate_whole,
            **{**arguments, **divided},
        )
        return loader

    def _divided(self, dataset: Dataset[Any]) -> dict[str, Any]:
        """Give the arguments that divide the samples among processes, as `best_loader` does."""
        config, share = self.config, self._share
        if share.world_size == 1:
            return {}
        seed = seed_without_group(config.generator())
        if isinstance(dataset, IterableDataset):
            return divided_stream(dataset, share, seed=seed)
        if config.is_ordered:
            return {}
        sampler = DistributedEpochSampler(
            dataset, seed=seed, shuffle=config.shuffle, rank=share.rank, world_size=share.world_size
        )
        return {"sampler": sampler}

    def _collate(self) -> Callable[[Any], Any] | None:
        """Give what makes batches; None is torch's own way."""
        if self._leaves_out:
            return SkippingCollate(self.config.collate_fn or collate_whole)
        return self.config.collate_fn

    def _workers(self) -> InFlight:
        """Settle who fetches batches ahead: as asked for or resolved, and within memory."""
        config = self.config
        if config.num_workers is None:
            pinned: dict[str, Any] = (
                {} if config.custom_batch_sampler is not None else {"batch_size": config.batch_size}
            )
            best = best_config(self.dataset, **self._resolving, **pinned).config
            wanted = InFlight(best.num_workers, best.prefetch_factor or DEFAULT_PREFETCH_FACTOR)
        else:
            wanted = InFlight(config.num_workers, config.prefetch_factor)
        if not config.memory_efficient:
            return wanted
        size, share = config.samples_in_batch, config.max_memory_usage
        return settled(self.dataset, wanted, batch_size=size, share=share, available=self._available)

    def _worker_arguments(self, workers: InFlight) -> dict[str, Any]:
        return self.config.worker_arguments(
            num_workers=workers.num_workers,
            prefetch_factor=workers.prefetch_factor,
            accelerator=_takes_pinned(self.device),
        )

    def _resolved(
        self, dataset: Dataset[Any], arguments: dict[str, Any], collate: Callable[[Any], Any] | None
    ) -> DataLoader[Any]:
        """Take the configuration that was measured best, with the batches that were asked for."""
        config = self.config
        pins: dict[str, Any] = {"pin_memory": config.pin_memory and _takes_pinned(self.device)}
        if config.memory_efficient:
            workers = self._workers()
            pins["num_workers"] = workers.num_workers
            if workers.num_workers:
                pins["prefetch_factor"] = workers.prefetch_factor
        if self._leaves_out:
            pins.update(cache="none", archive="ignore")  # samples are left out where batches are read
        pins["generator"] = config.generator()
        shuffle = config.shuffle and not config.is_ordered
        return best_loader(dataset, shuffle=shuffle, collate_fn=collate, **self._resolving, **arguments, **pins)

    def _logged(self, batches: Iterable[Any], epoch: int) -> Iterator[Any]:
        started_s, count = time.perf_counter(), 0
        for batch in batches:
            count += 1
            yield batch
        took_s = max(time.perf_counter() - started_s, 1e-9)
        self.logger.info(
            "epoch %d: %d batches in %s, %.2f batches/s", epoch, count, format_seconds(took_s), count / took_s
        )


class DataLoaderFactory:
    """Makes an `EfficientDataLoader` over a dataset, or over files of one kind."""

    @staticmethod
    def create_dataloader(
        dataset: Dataset[Any], config: DataLoaderConfig | None = None, **settings: Any
    ) -> EfficientDataLoader:
        """Give a loader over any dataset.

        Args:
            dataset: The dataset.
            config: The configuration.
            **settings: Further settings of `EfficientDataLoader`.
        """
        return EfficientDataLoader(dataset, config, **settings)

    @staticmethod
    def create_image_dataloader(
        data_path: DataPath,
        config: DataLoaderConfig | None = None,
        image_size: Size = (224, 224),
        *,
        archive_root: Path | None = None,
        home: DataPath | None = None,
        available: Callable[[], int] = available_bytes,
        **settings: Any,
    ) -> EfficientDataLoader:
        """Give a loader over the images of a folder.

        Args:
            data_path: Folder of images.
            config: The configuration.
            image_size: Height and width that every image is resized to.
            archive_root: As `EfficientDataLoader` takes it.
            home: As `EfficientDataLoader` takes it.
            available: As `EfficientDataLoader` takes it.
            **settings: Further settings of `ImageDataset`.
        """
        dataset = ImageDataset(data_path, image_size, **settings)
        return EfficientDataLoader(dataset, config, archive_root=archive_root, home=home, available=available)

    @staticmethod
    def create_text_dataloader(
        data_path: DataPath,
        config: DataLoaderConfig | None = None,
        tokenizer: Tokenizer | None = None,
        max_length: int = 512,
        *,
        archive_root: Path | None = None,
        home: DataPath | None = None,
        available: Callable[[], int] = available_bytes,
        **settings: Any,
    ) -> EfficientDataLoader:
        """Give a loader over texts.

        Args:
            data_path: File of lines, or folder of files.
            config: The configuration. With `variable_length_collate` or `padded_collate` texts come with their own
                lengths, cut at `max_length`; else they are padded to it.
            tokenizer: Turns a text into ids; None takes characters.
            max_length: Most ids of a text.
            archive_root: As `EfficientDataLoader` takes it.
            home: As `EfficientDataLoader` takes it.
            available: As `EfficientDataLoader` takes it.
            **settings: Further settings of `TextDataset`.
        """
        unpadded = (CustomCollateFn.variable_length_collate, CustomCollateFn.padded_collate)
        padding = config is None or config.collate_fn not in unpadded
        dataset = TextDataset(data_path, tokenizer, max_length, **{"padding": padding, **settings})
        return EfficientDataLoader(dataset, config, archive_root=archive_root, home=home, available=available)

    @staticmethod
    def create_hdf5_dataloader(
        data_path: DataPath,
        config: DataLoaderConfig | None = None,
        dataset_name: str | list[str] = "data",
        *,
        archive_root: Path | None = None,
        home: DataPath | None = None,
        available: Callable[[], int] = available_bytes,
        **settings: Any,
    ) -> EfficientDataLoader:
        """Give a loader over the rows of an HDF5 file.

        Args:
            data_path: The file.
            config: The configuration.
            dataset_name: Name of the dataset, or several.
            archive_root: As `EfficientDataLoader` takes it.
            home: As `EfficientDataLoader` takes it.
            available: As `EfficientDataLoader` takes it.
            **settings: Further settings of `HDF5Dataset`.
        """
        dataset = HDF5Dataset(data_path, dataset_name, **settings)
        return EfficientDataLoader(dataset, config, archive_root=archive_root, home=home, available=available)


def _takes_pinned(device: torch.device) -> bool:
    """Tell whether batches are copied to a device from memory that can be pinned."""
    return device.type not in ("cpu", "meta")


def _is_batch(batch: Any) -> bool:
    return batch is not NO_BATCH


__all__ = ["CustomCollateFn", "DataLoaderConfig", "DataLoaderFactory", "EfficientDataLoader"]
