"""What a pass over an image band finds, block by block: mean, spread, range, and a sample for the quartiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from autotune.errors import DatasetError
from autotune.spec.base import Value, first_message

Pixels = npt.NDArray[Any]


class BandStatistics(Value):
    """What a pass over one band found, of pixels with a measurement alone.

    Attributes:
        count: Pixels with a measurement.
        mean: Their mean.
        std: Their standard deviation, with `count` as divisor.
        minimum: The smallest.
        maximum: The largest.
        median: Median of the sample; None where none was drawn.
        iqr: Distance of the quartiles of the sample.
        sampled: Values in the sample; all of them where that is `count`.
    """

    count: int = Field(ge=1)
    mean: float
    std: float = Field(ge=0)
    minimum: float
    maximum: float
    median: float | None = None
    iqr: float | None = Field(default=None, ge=0)
    sampled: int = Field(default=0, ge=0)

    @property
    def constant(self) -> bool:
        """Whether all values are one."""
        return self.minimum == self.maximum


class RunningStatistics:
    """Statistics of one band as its blocks come, after Chan, Golub and LeVeque (1983).

    Args:
        sample_size: Values to draw; 0 draws none.
        generator: What the sample is drawn with.
    """

    def __init__(self, sample_size: int, generator: np.random.Generator) -> None:
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0
        self._range = (np.inf, -np.inf)
        self._sample_size = sample_size
        self._generator = generator
        self._keys = np.empty(0)
        self._sample = np.empty(0)

    def add(self, values: Pixels) -> None:
        """Take a block's values, measured ones alone."""
        count = values.size
        if not count:
            return
        exact = values.astype(np.float64)
        # an overflow gives infinity, which is refused where the statistics are put together
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(exact.mean())
            squares = float(np.square(exact - mean).sum())
            total = self._count + count
            apart = mean - self._mean
            self._squares += squares + apart * apart * (self._count * count / total)
            self._mean += apart * (count / total)
        self._count = total
        self._range = min(self._range[0], float(exact.min())), max(self._range[1], float(exact.max()))
        if self._sample_size:
            self._draw(exact)

    def _draw(self, values: npt.NDArray[np.float64]) -> None:
        """Keep the values of the smallest random keys: a sample without replacement of all that came."""
        keys = self._generator.random(values.size)
        if self._keys.size >= self._sample_size:
            low = keys < self._keys.max()
            keys, values = keys[low], values[low]
        self._keys = np.concatenate([self._keys, keys])
        self._sample = np.concatenate([self._sample, values])
        if self._keys.size > self._sample_size:
            kept = np.argpartition(self._keys, self._sample_size)[: self._sample_size]
            self._keys, self._sample = self._keys[kept], self._sample[kept]

    def statistics(self, number: int) -> BandStatistics:
        """Put together what was found of band `number`.

        Raises:
            DatasetError: It has no measurement, or values that no float can square.
        """
        if not self._count:
            raise DatasetError(
                f"normalisation needs measurements, got none in band {number}: every pixel is nodata or not finite; "
                "leave the band out by bands=(...), or give fixed numbers"
            )
        quartiles = np.quantile(self._sample, (0.25, 0.5, 0.75)).tolist() if self._sample_size else None
        low, high = self._range
        try:
            return BandStatistics(
                count=self._count,
                mean=low if low == high else self._mean,
                std=0.0 if low == high else float(np.sqrt(self._squares / self._count)),
                minimum=low,
                maximum=high,
                median=quartiles[1] if quartiles else None,
                iqr=quartiles[2] - quartiles[0] if quartiles else None,
                sampled=self._sample.size,
            )
        except ValidationError as error:
            raise DatasetError(f"band {number} has values from {low:g} to {high:g}: {first_message(error)}") from error
