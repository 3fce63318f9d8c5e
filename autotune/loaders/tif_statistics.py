"""What the data of TIF loaders looks like, in numbers: counts, shape, range, mean and deviation."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autotune.data.datasets.tif_images import TifImageDataset
from autotune.data.stages import apart
from autotune.errors import DatasetError

_LOG = logging.getLogger(__name__)

MEASURED_SAMPLES = 16
"""Most samples that figures are computed of: reading a whole data set would delay training."""
_RULE = "=" * 60


@dataclass(frozen=True, kw_only=True)
class ImageFigures:
    """Figures over the pixels of several images, before augmentation.

    Attributes:
        name: What the images are in a sample; empty where there is one.
        shape: Shape of one image.
        dtype: Its type.
        low: Smallest value.
        high: Largest value.
        mean: Mean.
        std: Population standard deviation.
    """

    name: str
    shape: torch.Size
    dtype: torch.dtype
    low: float
    high: float
    mean: float
    std: float

    @classmethod
    def of(cls, name: str, images: Sequence[torch.Tensor]) -> ImageFigures:
        """Compute them."""
        pixels = torch.stack(list(images)).numpy().astype(np.float64)
        return cls(
            name=name,
            shape=images[0].shape,
            dtype=images[0].dtype,
            low=float(pixels.min()),
            high=float(pixels.max()),
            mean=float(pixels.mean()),
            std=math.sqrt(float(pixels.var())),
        )

    def lines(self, measured: int, total: int) -> list[str]:
        """Write them, with the number of images that they come from."""
        return [
            f"{f'{self.name} image' if self.name else 'Image'} properties (from {measured} of {total} train samples):",
            f"  Shape: {self.shape}",
            f"  Dtype: {self.dtype}",
            f"  Range: [{_text(self.low)}, {_text(self.high)}]",
            f"  Mean: {_text(self.mean)}",
            f"  Std: {_text(self.std)}",
        ]


@dataclass(frozen=True, kw_only=True)
class TifStatistics:
    """Statistics of the data of two loaders.

    Attributes:
        source: Where images come from.
        train_samples: Samples of training.
        val_samples: Samples of validation.
        measured: Samples of training that the figures were computed of.
        images: Figures of each image of a sample.
    """

    source: str
    train_samples: int
    val_samples: int
    measured: int
    images: tuple[ImageFigures, ...]

    def text(self) -> str:
        """Write them as a table."""
        total = self.train_samples + self.val_samples
        train, val = self.train_samples / total, self.val_samples / total
        lines = [
            _RULE,
            "Dataset Statistics",
            _RULE,
            f"Data source: {self.source}",
            f"Train samples: {self.train_samples}",
            f"Val samples: {self.val_samples}",
            f"Total: {total}",
            f"Split ratio: {train:.1%} / {val:.1%}",
        ]
        for figures in self.images:
            lines += ["", *figures.lines(self.measured, self.train_samples)]
        return "\n".join([*lines, _RULE])


def tif_statistics(
    train: TifImageDataset, val: TifImageDataset, source: str, *, samples: int = MEASURED_SAMPLES
) -> TifStatistics:
    """Compute the statistics, of at most so many samples, spread over those of training.

    Raises:
        SampleError: One of them cannot be read.
    """
    places = np.unique(np.linspace(0, len(train) - 1, samples).astype(int)).tolist()
    dataset = apart(train)
    read = [dataset.base_sample(place) for place in places]
    names = ("",) if isinstance(read[0], torch.Tensor) else ("Target", "Condition")
    columns = [read] if isinstance(read[0], torch.Tensor) else list(zip(*read, strict=True))
    return TifStatistics(
        source=source,
        train_samples=len(train),
        val_samples=len(val),
        measured=len(places),
        images=tuple(ImageFigures.of(name, images) for name, images in zip(names, columns, strict=True)),
    )


def log_statistics(train: TifImageDataset, val: TifImageDataset, source: str, *, rank: int = 0) -> None:
    """Log the statistics at level INFO in the first process; they are computed only where somebody listens."""
    if rank != 0 or not _LOG.isEnabledFor(logging.INFO):
        return
    try:
        _LOG.info("%s", tif_statistics(train, val, source).text())
    except DatasetError as error:
        _LOG.warning("there are no statistics of the data, as a sample cannot be read: %s", error)


def _text(number: float) -> str:
    return f"{round(number, 3) + 0.0:.3f}"  # the sum is no -0.0


__all__ = ["MEASURED_SAMPLES", "ImageFigures", "TifStatistics", "log_statistics", "tif_statistics"]
