"""Canopy gaps: windows of canopy-height rasters with masks of what is low."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch.utils.data import Dataset

from autotune.data.datasets.raster_files import OpenRasters, invalid_pixels, raster_size
from autotune.data.datasets.windows import Size, as_size, pad_to, path_array, path_at, window_origins
from autotune.errors import DatasetError, SpecError

InvalidRule = Literal["fill", "keep", "report"]

IGNORED = 255
"""Value of the gap mask where nothing was measured, under the rule `report`."""


class GapMaskDataset(Dataset[Any]):
    """Windows of canopy height with their gaps.

    A sample is `(height, gaps)`: float32 `(1, h, w)` in metres and uint8 `(thresholds, h, w)`, 1 where the
    canopy is lower than the threshold. A pixel without a measurement is never a gap.

    Args:
        rasters: Canopy-height rasters; their first band is read.
        threshold: Height in metres under which a pixel is a gap; several give one channel each.
        window: Size of the windows in pixels.
        stride: Step from window to window; windows cover every pixel.
        invalid: Pixels without a measurement: `fill` sets their height to `fill`, `keep` leaves it as it
            is, `report` fills it and marks them 255 in the mask.
        nodata_zero_is_invalid: Whether a declared nodata value of 0 counts; by default 0 m is a gap.
        fill: Height in metres where nothing was measured.
    """

    unfingerprinted = ("_open",)

    def __init__(
        self,
        rasters: Sequence[str | os.PathLike[str]],
        *,
        threshold: float | Sequence[float] = 5.0,
        window: Size = 64,
        stride: Size | None = None,
        invalid: InvalidRule = "fill",
        nodata_zero_is_invalid: bool = False,
        fill: float = 0.0,
    ) -> None:
        if not rasters:
            raise DatasetError("a gap dataset needs at least one raster, got none")
        if invalid not in ("fill", "keep", "report"):
            raise SpecError(f"invalid must be 'fill', 'keep' or 'report', got {invalid!r}")
        thresholds = (threshold,) if isinstance(threshold, int | float) else tuple(threshold)
        if not thresholds or min(thresholds) <= 0:
            raise SpecError(f"a threshold must be above 0 m, got {threshold!r}")
        self.thresholds = tuple(float(value) for value in thresholds)
        self.window = as_size(window, "window")
        self.stride = as_size(stride or window, "stride")
        self.invalid = invalid
        self.nodata_zero_is_invalid = nodata_zero_is_invalid
        self.fill = fill
        self._paths = path_array(rasters)
        self._sizes = np.array([raster_size(path) for path in self.source_paths()], dtype=np.int64)
        sizes = [(height, width) for height, width in self._sizes.tolist()]
        self._windows = window_origins(sizes, self.window, self.stride)
        self._open = OpenRasters()

    @classmethod
    def from_folder(
        cls, folder: str | os.PathLike[str], pattern: str | Sequence[str] = "**/*.tif", **settings: Any
    ) -> Self:
        """Take every raster under a folder that matches a pattern, in the order of their paths.

        Args:
            folder: Folder that is searched.
            pattern: Glob pattern relative to it, or several; `**/` searches folders inside.
            **settings: Settings of the class.

        Raises:
            DatasetError: There is no such folder, or nothing matches.
        """
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise DatasetError(f"the folder of rasters must exist, got {os.fspath(folder)!r} in {Path.cwd()}")
        patterns = (pattern,) if isinstance(pattern, str) else tuple(pattern)
        found = sorted({path for one in patterns for path in root.glob(one) if path.is_file()})
        if not found:
            raise DatasetError(f"no file under {root} matches {', '.join(patterns)}")
        return cls(found, **settings)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        number, row, column = self._windows[index].tolist()
        height, width = self._sizes[number].tolist()
        box = (row, column, min(self.window[0], height - row), min(self.window[1], width - column))
        raster = self._open.read(path_at(self._paths, number), box, bands=(1,))
        heights = raster.pixels.astype(np.float32, copy=False)
        invalid = invalid_pixels(raster, zero_is_invalid=self.nodata_zero_is_invalid)
        limits = np.asarray(self.thresholds, dtype=np.float32)[:, None, None]
        gaps = ((heights < limits) & ~invalid).astype(np.uint8)
        if self.invalid != "keep":
            heights[invalid] = self.fill
        if self.invalid == "report":
            gaps[np.broadcast_to(invalid, gaps.shape)] = IGNORED
        outside = IGNORED if self.invalid == "report" else 0
        filled = np.nan if self.invalid == "keep" else self.fill
        return (
            torch.from_numpy(pad_to(heights, self.window, filled)),
            torch.from_numpy(pad_to(gaps, self.window, outside)),
        )

    def path_of(self, index: int) -> str:
        """Give the path of the raster behind a sample."""
        return path_at(self._paths, int(self._windows[index, 0]))

    def source_paths(self) -> Iterator[str]:
        """Give every file behind the dataset."""
        return (path_at(self._paths, index) for index in range(len(self._paths)))

    def sample_structure(self) -> str:
        """Declare the structure of a sample."""
        height, width = self.window
        return f"(float32[1,{height},{width}], uint8[{len(self.thresholds)},{height},{width}])"
