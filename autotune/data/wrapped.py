"""The base of datasets that read another dataset's samples from somewhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from autotune.data.stages import Augmentation, decode_stage, has_augment
from autotune.errors import SampleError


class WrappedDataset(Dataset[Any]):
    """A dataset with the length, order and attributes of another one.

    Subclasses say where deterministic samples come from; augmentation is applied here.

    Args:
        source: The dataset that is wrapped.

    Attributes:
        augments_samples: Whether some sample goes through an `augment` stage.
    """

    def __init__(self, source: Dataset[Any]) -> None:
        self.source = source
        self._augmentation = Augmentation()
        self.augments_samples = has_augment(source)

    def base_sample(self, index: int) -> Any:
        """Give one sample before augmentation."""
        raise NotImplementedError

    def base_samples(self, indices: Sequence[int]) -> list[Any]:
        """Give the samples of a batch before augmentation."""
        return [self.base_sample(index) for index in indices]

    def augment_sample(self, sample: Any, index: int) -> Any:
        """Augment one sample as the source would."""
        return self._augmentation.apply(self.source, sample, index) if self.augments_samples else sample

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that augmentation is seeded with, in running workers too; passes of loaders leave it so."""
        self._augmentation.set_epoch(self.source, epoch)

    def begin_epoch(self, epoch: int, *, steered: bool = False) -> None:
        """Enter an epoch as a pass of a loader begins, here and in the source, unless the caller has set one."""
        self._augmentation.begin_epoch(self.source, epoch, steered=steered)

    def __len__(self) -> int:
        return len(self.source)  # type: ignore[arg-type]  # checked when it was wrapped

    def __getitem__(self, index: int) -> Any:
        place = self._place(index)
        return self.augment_sample(self.base_sample(place), place)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Give the samples of a batch, read as a whole where the store can."""
        places = self._places(indices)
        samples = self.base_samples(places)
        if not self.augments_samples:
            return samples
        return [self.augment_sample(sample, place) for sample, place in zip(samples, places, strict=True)]

    def _place(self, index: int) -> int:
        return self._places([index])[0]

    def _places(self, indices: Sequence[int]) -> list[int]:
        count = len(self)
        for index in indices:
            if not -count <= index < count:
                raise IndexError(f"index must be under {count}, got {index}")
        return [int(index) % count for index in indices]

    def __getattr__(self, name: str) -> Any:
        # Copying and unpickling ask for attributes before there is a source; and special methods are
        # looked up on the class, so forwarding them would promise what does not work.
        source = self.__dict__.get("source")
        if source is None or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"{type(self).__qualname__} has no attribute {name!r}")
        return getattr(source, name)


class ArchivedDataset(WrappedDataset):
    """A dataset whose samples come from an archive.

    Args:
        source: The dataset that the archive was built from.
        reader: What the archive's format opened.
        encoded: Whether the archive holds original bytes, which the source decodes.
        hold: Keeps the archive from being removed for as long as it is referred to.
    """

    def __init__(
        self, source: Dataset[Any], reader: Dataset[Any], *, encoded: bool, hold: object | None = None
    ) -> None:
        super().__init__(source)
        self._hold = hold
        self._reader = reader
        self._encoded = encoded
        self._whole = not encoded and hasattr(type(reader), "__getitems__")

    def base_sample(self, index: int) -> Any:
        """Read one sample from the archive."""
        stored = self._reader[index]
        if not self._encoded:
            return stored
        try:
            return decode_stage(self.source, index, stored)
        except SampleError as error:
            if error.path is not None:
                raise
            raise SampleError(f"sample {index} of the archive: {error.message}") from error

    def base_samples(self, indices: Sequence[int]) -> list[Any]:
        """Read a batch from the archive, as a whole where the format can."""
        if not self._whole:
            return [self.base_sample(index) for index in indices]
        batch: list[Any] = self._reader.__getitems__(indices)  # type: ignore[attr-defined]  # asked for above
        return batch


__all__ = ["ArchivedDataset", "WrappedDataset"]
