"""Keras 3: tuned datasets as `PyDataset`s for `model.fit`, and Keras's own queue as a loader that can be measured.

Where nothing else was chosen before, importing this module lets Keras run on torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from autotune.data.datasets.cityscapes import CityscapesDataset
from autotune.data.datasets.labelled_arrays import LabelledArraysDataset
from autotune.data.device_stage import device_transform_of
from autotune.data.stages import begin_epoch
from autotune.errors import DatasetError, SpecError
from autotune.integrations.keras_package import imported_keras
from autotune.integrations.keras_queue import KerasLoader, KerasThreadLoader, forget_leftovers
from autotune.integrations.numbered_batches import as_arrays
from autotune.resolve.best import best_loader
from autotune.resolve.resolution import warn_caller

keras: Any = imported_keras()

KERAS_QUEUE_SIZE = 10
"""Keras's own `max_queue_size`, where a configuration has no workers and so none of its own."""


class TunedPyDataset(keras.utils.PyDataset):  # type: ignore[misc]  # Keras is untyped here
    """Any map-style torch dataset as a Keras `PyDataset`, with the configuration that was measured best for it.

    Archive, cache and workers are resolved as `autotune.best_loader` does, and batches are numpy arrays. Keras reads
    them by `workers` processes, with `prefetch_factor * workers` batches in its queue. Each epoch has another order
    and another augmentation, both by seed. `fit(shuffle=True)`, Keras's default, also mixes the order of the batches.

    Keras moves batches to the device by itself and runs nothing of ours there: a dataset's `device_transform` is not
    run, which is warned of.

    Args:
        dataset: A map-style dataset.
        batch_size: Samples in a batch; None is what a study with the training step measured, else 32.
        shuffle: Whether each epoch has an order of its own.
        seed: Seed of the orders.
        drop_last: Whether a last batch that is not full is left out.
        collate_fn: Makes a batch of a list of samples.
        workers: Worker processes or threads; None resolves.
        use_multiprocessing: Whether they are processes, as was measured; None is True where there are any.
        max_queue_size: Most batches in the queue; None resolves.
        study: Only this study.
        home: Home folder.
        archive: Which archive is read; see `autotune.best_loader`.
        **pins: Further fields of `LoaderConfig` that are fixed (`cache`, `prefetch_factor`, ...).

    Attributes:
        dataset: The dataset, with archive and cache inside it.
        batch_size: Samples in a batch.
        shuffle: Whether each epoch has an order of its own.

    Raises:
        SpecError: Arguments contradict each other.
        DatasetError: There are fewer samples than a batch has, and `drop_last` leaves none.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        batch_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        workers: int | None = None,
        use_multiprocessing: bool | None = None,
        max_queue_size: int | None = None,
        study: str | None = None,
        home: str | None = None,
        archive: str = "if_built",
        **pins: Any,
    ) -> None:
        if device_transform_of(dataset) is not None:
            warn_caller(
                f"Keras runs nothing between transfer and model, so device_transform of {type(dataset).__qualname__} "
                "is left out; do its work in a layer of the model, or where samples are loaded (normalize_on='loader')"
            )
        processes = use_multiprocessing is not False
        made = best_loader(
            dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            collate_fn=collate_fn,
            study=study,
            home=home,
            archive=archive,
            loader_class=KerasLoader if processes else KerasThreadLoader,
            num_workers=workers,
            generator=torch.Generator().manual_seed(seed),
            drop_last=drop_last,
            **pins,
        )
        loader = cast("KerasLoader", made)  # the class that was given
        self._loader: KerasLoader | None = loader
        super().__init__(
            workers=loader.num_workers,
            use_multiprocessing=processes and loader.num_workers > 0,
            max_queue_size=max_queue_size or loader.queue_size or KERAS_QUEUE_SIZE,
        )
        self.dataset = loader.dataset
        self.batch_size = loader.batch_size
        self.shuffle = shuffle
        self._epoch = 0
        self._begin_epoch()
        if not self._batches:
            raise DatasetError(
                f"a batch of {self.batch_size} is more than all {len(loader.dataset)} samples, and drop_last=True "  # type: ignore[arg-type]  # map-style
                "leaves none; take a smaller batch_size, or drop_last=False"
            )

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} batches, got the index {index}")
        number = index % len(self)
        return as_arrays(self._reader.read(self._batches[number], number=number, seed=self._seed))

    @property
    def indexes(self) -> npt.NDArray[np.int64]:
        """Positions of the epoch's samples in the dataset, in the order in which they are read."""
        return np.concatenate([np.atleast_1d(np.asarray(batch, np.int64)) for batch in self._batches])

    def on_epoch_end(self) -> None:
        """Begin the next epoch: another order and another augmentation.

        Keras calls it once before the first epoch too. A copy that was sent to another process stays in the epoch
        that it was sent in.
        """
        forget_leftovers(sys._getframe())  # noqa: SLF001  # the caller is asked for what it hands to nobody
        if self._loader is None:
            return
        self._epoch += 1
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        loader = self._loader
        if loader is None:
            return
        if self._epoch:
            begin_epoch(loader.dataset, self._epoch, steered=True)
            for sampler in (loader.batch_sampler, loader.sampler):
                if callable(getattr(sampler, "set_epoch", None)):
                    sampler.set_epoch(self._epoch)  # type: ignore[union-attr]  # asked for above
        self._seed, self._batches = loader.draw_batches()
        self._reader = loader.reader()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what only draws orders; spawned workers read the batches of their epoch."""
        return {**vars(self), "_loader": None}


class DataGenerator(TunedPyDataset):
    """Batches of arrays in files `<data_dir>/<ID>.npy` with one-hot labels.

    A batch is `(X, y)`: float32 `(N, *dim, n_channels)` and float32 `(N, n_classes)`.

    Args:
        list_IDs: Names of the files without their suffix.
        labels: Class of each ID, from 0 on.
        dim: Shape of a sample without its channels.
        batch_size: Samples in a batch.
        n_classes: Number of classes.
        n_channels: Number of channels.
        shuffle: Whether each epoch has an order of its own.
        data_dir: Folder of the files.
        drop_last: Whether a last batch that is not full is left out.
        seed: Seed of the orders.
        **settings: `workers`, `use_multiprocessing`, `max_queue_size` and further settings of `TunedPyDataset`.

    Raises:
        DatasetError: Files or labels are missing, or there is no full batch.
        SpecError: A label is no class, or `dim` is no shape.
    """

    def __init__(  # noqa: PLR0917  # the order that its users know
        self,
        list_IDs: Sequence[str],  # noqa: N803  # the name that its users know
        labels: Mapping[str, int],
        dim: Sequence[int] = (32, 32, 32),
        batch_size: int = 32,
        n_classes: int = 10,
        n_channels: int = 1,
        shuffle: bool = True,
        *,
        data_dir: str | os.PathLike[str] = "data",
        drop_last: bool = True,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        if isinstance(dim, int):  # an older order has batch_size in its place
            raise SpecError(
                f"dim must be the shape of a sample, got {dim}; the order is DataGenerator(list_IDs, labels, dim, "
                "batch_size, n_classes, n_channels, shuffle), so give batch_size by name"
            )
        files = LabelledArraysDataset(
            list_IDs, labels, folder=data_dir, dim=dim, n_channels=n_channels, n_classes=n_classes
        )
        super().__init__(files, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, seed=seed, **settings)
        self.list_IDs, self.labels = list_IDs, labels
        self.dim, self.n_channels, self.n_classes = files.dim, n_channels, n_classes


class CityscapesDataGenerator(TunedPyDataset):
    """Batches of street scenes with the categories of their pixels.

    A batch is `(images, masks)`: float32 `(N, H, W, 3)` from 0 to 1, uint8 where it is not normalised, and uint8
    `(N, H, W)` with 0 to 7, as a sparse loss takes them. Where Keras is set to channels first, so are the images.

    Args:
        ids: City, sequence and frame of each sample; None takes every image of the split.
        batch_size: Samples in a batch.
        dim: Height and width.
        augmentation: A transform of Albumentations.
        normalize: Whether images are divided by 255.
        shuffle: Whether each epoch has an order of its own.
        data_dir: Folder that holds `leftImg8bit` and `gtFine`.
        split: Folder inside them.
        image_dir: Folder of the cities' images, in place of those two.
        label_dir: Folder of the cities' masks.
        target: What a mask holds; see `CityscapesDataset`.
        seed: Seed of orders and augmentation.
        **settings: `workers`, `use_multiprocessing`, `max_queue_size` and further settings of `TunedPyDataset`.

    Raises:
        DatasetError: Folders or files are missing.
    """

    def __init__(
        self,
        ids: Iterable[Sequence[str | int]] | None = None,
        *,
        batch_size: int = 16,
        dim: tuple[int, int] = (512, 512),
        augmentation: Any = None,
        normalize: bool = True,
        shuffle: bool = True,
        data_dir: str | os.PathLike[str] = "data/raw",
        split: str = "train",
        image_dir: str | os.PathLike[str] | None = None,
        label_dir: str | os.PathLike[str] | None = None,
        target: str = "category",
        seed: int = 0,
        **settings: Any,
    ) -> None:
        scenes = CityscapesDataset(
            data_dir,
            split,
            ids=ids,
            image_dir=image_dir,
            label_dir=label_dir,
            size=dim,
            normalize=normalize,
            target=target,
            channels="first" if keras.config.image_data_format() == "channels_first" else "last",
            augmentation=augmentation,
            seed=seed,
        )
        super().__init__(scenes, batch_size=batch_size, shuffle=shuffle, seed=seed, **settings)
        self.ids = [tuple(one) for one in scenes.ids.tolist()]
        self.dim, self.normalize, self.augmentation = scenes.size, normalize, scenes.augmentation


def create_data_generators(  # noqa: PLR0917  # the order that its users know
    train_split: str = "train",
    val_split: str = "val",
    batch_size: int = 16,
    dim: tuple[int, int] = (512, 512),
    augmentation: Any = None,
    normalize: bool = True,
    *,
    data_dir: str | os.PathLike[str] = "data/raw",
    workers: int | None = None,
    use_multiprocessing: bool | None = None,
    max_queue_size: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> tuple[CityscapesDataGenerator, CityscapesDataGenerator]:
    """Make the generators for training and validation; the one for validation is neither augmented nor shuffled.

    Args:
        train_split: Split that is trained on.
        val_split: Split that is validated on.
        batch_size: Samples in a batch.
        dim: Height and width.
        augmentation: A transform of Albumentations.
        normalize: Whether images are divided by 255.
        data_dir: Folder that holds `leftImg8bit` and `gtFine`.
        workers: Worker processes or threads; None resolves.
        use_multiprocessing: Whether they are processes; None is True where there are any.
        max_queue_size: Most batches in Keras's queue; None resolves.
        seed: Seed of orders and augmentation.
        **settings: Further settings of `CityscapesDataGenerator`, for both.

    Raises:
        DatasetError: Folders or files are missing.
    """
    shared = {
        "batch_size": batch_size,
        "dim": dim,
        "normalize": normalize,
        "data_dir": data_dir,
        "workers": workers,
        "use_multiprocessing": use_multiprocessing,
        "max_queue_size": max_queue_size,
        "seed": seed,
        **settings,
    }
    return (
        CityscapesDataGenerator(split=train_split, augmentation=augmentation, shuffle=True, **shared),
        CityscapesDataGenerator(split=val_split, augmentation=None, shuffle=False, **shared),
    )


__all__ = [
    "CityscapesDataGenerator",
    "DataGenerator",
    "KerasLoader",
    "KerasThreadLoader",
    "TunedPyDataset",
    "create_data_generators",
]
