"""`VisualizationCallback`: image, mask and prediction side by side."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from autotune.errors import SpecError
from autotune.training.callbacks.base import Callback, Logs

_INCHES = 2.5
_COLOURS = 3
"""Bands that make a picture in colour; of more, the first ones."""


class VisualizationCallback(Callback):
    """Draws the first samples of validation after an epoch: `epoch_<number>.png`, sent to MLflow where that is told.

    Nothing is read for it: what validation saw anyway is drawn.

    Args:
        output_dir: Folder of the pictures.
        samples: Rows of a picture.
        every_epochs: Epochs between two pictures.

    Raises:
        SpecError: A setting breaks a rule.
    """

    order: ClassVar[int] = 10

    def __init__(
        self, output_dir: str | os.PathLike[str] = "visualizations", *, samples: int = 4, every_epochs: int = 1
    ) -> None:
        for name, value in (("samples", samples), ("every_epochs", every_epochs)):
            if value < 1:
                raise SpecError(f"{name} is at least 1, got {value}")
        self.output_dir = Path(output_dir)
        self._samples = samples
        self._every = every_epochs
        self._seen: list[tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], str]] = []

    def on_validation_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Keep the first samples."""
        due = (self.trainer.epoch + 1) % self._every == 0 and self.trainer.leads
        if batch == 0:
            self._seen.clear()
        missing = self._samples - len(self._seen)
        if not due or missing <= 0 or not logs:
            return
        images, targets, chances = (logs[name][:missing] for name in ("images", "targets", "probabilities"))
        thresholds = logs["thresholds"]
        for place in range(len(images)):
            title = "" if thresholds is None else f"under {float(thresholds[place]):g} m"
            self._seen.append((_picture(images[place]), _plane(targets[place]), _decided(chances[place]), title))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Draw what was kept."""
        del logs
        if not self._seen:
            return
        self.output_dir.mkdir(parents=True, exist_ok=True)
        path = self.output_dir / f"epoch_{epoch:04d}.png"
        self._draw(path)
        self._seen.clear()
        self.trainer.artifacts.append(path)

    def _draw(self, path: Path) -> None:
        from matplotlib.figure import Figure  # without pyplot, which would choose a backend for the program

        rows, ignored = len(self._seen), self.trainer.config.ignore_index
        figure = Figure(figsize=(3 * _INCHES, rows * _INCHES), layout="constrained")
        cells = figure.subplots(rows, 3, squeeze=False)
        for row, (image, mask, prediction, title) in zip(cells, self._seen, strict=True):
            highest = float(mask[mask != ignored].max(initial=1.0))  # what does not count is clipped to it
            for cell, name, values in zip(row, ("image", "mask", "prediction"), (image, mask, prediction), strict=True):
                limits = {} if name == "image" else {"vmin": 0.0, "vmax": highest}
                cell.imshow(values, cmap="viridis" if name == "image" else "gray", **limits)
                cell.set_title(f"{name} {title}" if name == "mask" else name, fontsize="small")
                cell.set_axis_off()
        figure.savefig(path, format="png")


def _picture(image: torch.Tensor) -> npt.NDArray[Any]:
    """Give an image `(C, H, W)` as matplotlib draws it: one band as it is, three as colours from 0 to 1."""
    values = image.detach().float().cpu().numpy()
    if len(values) < _COLOURS:
        return np.asarray(values[0])
    colours = np.moveaxis(values[:_COLOURS], 0, -1)
    low, high = np.nanmin(colours), np.nanmax(colours)
    return np.asarray(np.nan_to_num((colours - low) / max(float(high - low), 1e-12)))


def _plane(mask: torch.Tensor) -> npt.NDArray[Any]:
    return np.asarray(mask.detach().float().cpu().numpy().reshape(mask.shape[-2:]))


def _decided(chances: torch.Tensor) -> npt.NDArray[Any]:
    """Give probabilities of gaps as they are, and of classes the number of the likeliest."""
    values = chances.detach().float().cpu()
    return np.asarray((values[0] if len(values) == 1 else values.argmax(dim=0)).numpy())


__all__ = ["VisualizationCallback"]
