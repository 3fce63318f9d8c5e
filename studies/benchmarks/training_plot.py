"""The plot of `training.py`: seconds with each loader, and the losses of a resumed training over an uninterrupted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

_COLOURS = {"resolved": "#1f5a8a", "online": "#5b9a57", "default": "#9a9a9a", "rule": "#c9a227"}


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Draw a row of panels for each model, and one for the losses."""
    models, about = document["models"], document["circumstances"]
    rows = len(models) + 1
    figure = plt.figure(figsize=(11, 0.6 + 2.3 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 2)
    for row, (name, found) in enumerate(models.items()):
        _bars(figure.add_subplot(grid[row, 0]), name, found, about)
        _epochs(figure.add_subplot(grid[row, 1]), name, found)
    _losses(figure.add_subplot(grid[rows - 1, :]), document["resumed"])
    figure.suptitle(f"Training with each loader, {about['machine']}; same seeds, same losses", fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _bars(axis: Any, name: str, found: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Draw the seconds of all epochs, every run as a point, and where the IoU was reached."""
    for place, (loader, entry) in enumerate(found["loaders"].items()):
        seconds = entry["all_epochs"]["seconds"]
        axis.barh(place, entry["all_epochs"]["mean"], 0.65, color=_COLOURS[loader])
        axis.plot(seconds, [place] * len(seconds), "o", color="#202020", ms=2.5)
        if entry["to_iou"] is not None:
            axis.plot([entry["to_iou"]["mean"]] * 2, [place - 0.33, place + 0.33], color="white", lw=1.5)
        axis.annotate(
            f"waiting {entry['data_wait_share']['mean']:.0%}",
            (max(seconds), place),
            (4, 0),
            textcoords="offset points",
            va="center",
            size=7,
        )
    titles = [entry["title"] for entry in found["loaders"].values()]
    axis.set_yticks(range(len(titles)), titles, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.16)
    axis.set_xlim(left=0)
    axis.set_xlabel(f"seconds for {about['epochs']} epochs (white: IoU {about['iou']:g} reached)", fontsize=8)
    axis.set_title(f"{name}: {found['data']['parameters']:,} parameters", fontsize=9)
    axis.tick_params(axis="x", labelsize=7)


def _epochs(axis: Any, name: str, found: Mapping[str, Any]) -> None:
    """Draw the seconds of each epoch."""
    for loader, entry in found["loaders"].items():
        epochs = range(1, len(entry["epoch_s"]) + 1)
        axis.plot(epochs, entry["epoch_s"], marker="o", ms=3, lw=1.2, color=_COLOURS[loader], label=entry["title"])
    axis.set_xticks(list(epochs))
    axis.set_ylim(bottom=0)
    axis.set_xlabel("epoch", fontsize=8)
    axis.set_title(f"{name}: seconds of each epoch, validation included", fontsize=9)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7, frameon=False)


def _losses(axis: Any, found: Mapping[str, Any]) -> None:
    """Draw the losses of all batches, and how far the two trainings are apart."""
    whole, resumed, at = found["uninterrupted"], found["resumed"], found["broken_off_after"]["batches"]
    apart = max(abs(one - other) for one, other in zip(whole, resumed, strict=True))
    places = range(len(whole))
    axis.plot(places, whole, color="#bbbbbb", lw=3.0, label="uninterrupted")
    axis.plot(places[:at], resumed[:at], color="#1f5a8a", lw=0.9, label="until it was broken off")
    axis.plot(places[at:], resumed[at:], color="#a01010", lw=0.9, label="resumed in another process")
    axis.axvline(at - 0.5, color="black", lw=0.8, ls=":")
    axis.set_xlabel("batch", fontsize=8)
    axis.set_ylabel("loss", fontsize=8)
    axis.set_title(f"resumed and uninterrupted: largest difference {apart:g}", fontsize=9)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7, frameon=False)
