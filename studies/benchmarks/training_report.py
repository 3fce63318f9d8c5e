"""The record of `training.py`: JSON, tables for people, and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training_plot import draw


def write_records(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write JSON, Markdown and plot of one run and give their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{document['circumstances']['at'][:10]}-training"
    json_path, text_path, plot_path = (folder / f"{name}.{ending}" for ending in ("json", "md", "png"))
    json_path.write_text(json.dumps(document, indent=1) + "\n")
    draw(document, plot_path)
    text_path.write_text(markdown(document, plot_path.name))
    return [json_path, text_path, plot_path]


def markdown(document: Mapping[str, Any], plot: str) -> str:
    """Write a run as text."""
    about = document["circumstances"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    circumstances = (
        f"{about['machine']}; load {about['load_average'][0]:.1f} before, {about['load_average'][1]:.1f} after; "
        f"{about['took_s'] / 60:.0f} min. Versions: {versions}."
    )
    method = (
        f"Tiles of 64 x 64 pixels of {about['data']}, pairs of GeoTIFF files of heights and gaps under 5 m, in batches "
        f"of {about['batch_size']}; other places validate. Each training is a process of its own, timed "
        f"from the making of its loaders, validation included; {about['blocks']} blocks of random order. Seeds are the "
        "same, and so are all losses, to the last bit: the benchmark fails where they are not. Seconds are means over "
        "the blocks, lowest and highest in brackets; ratios are paired by block, with 95 % intervals. Waiting is the "
        "share of training that was waited for data, first batches of epochs apart."
    )
    parts = [f"# Training with each loader, {about['at'][:10]}", circumstances, method]
    parts.append(f"![seconds with each loader, and losses resumed and uninterrupted]({plot})")
    for name, found in document["models"].items():
        parts += _of_model(name, found, about)
    parts += ["## Resumed and uninterrupted", _resumed(document["resumed"])]
    return "\n\n".join(parts) + "\n"


def _of_model(name: str, found: Mapping[str, Any], about: Mapping[str, Any]) -> list[str]:
    samples, tuning, learned = found["data"]["samples"], found["tuning"], found["learned"]
    shape = ", ".join(f"{key} {value}" for key, value in found["model"].items())
    reached = learned["reached_in"]
    ious = ", ".join(f"{value:.3f}" for value in learned["val_iou"])
    goal = f"IoU {about['iou']:g}"
    told = f"{goal} in epoch {reached + 1}" if reached is not None else f"{goal} in none"
    lines = [
        f"## {name}: U-Net with {shape}, {found['data']['parameters']:,} parameters",
        (
            f"{samples[0]:,} tiles train ({found['data']['batches']:,} batches), {samples[1]:,} validate. IoU of "
            f"validation by epoch: {ious}; {told}. The study before took {tuning['wall_s']:.0f} s: "
            f"{tuning['outcome'].replace('_', ' ')}, {tuning['best']}. {tuning['why']}"
        ),
    ]
    if reached is not None:
        lines += [f"To {goal}:", _table(found["loaders"], "to_iou")]
    lines += [f"{about['epochs']} epochs:", _table(found["loaders"], "all_epochs")]
    lines += [
        "What the loader that tunes itself tried and came to, in the first block:",
        _code(found["online_logs"][0]),
    ]
    return lines


def _table(loaders: Mapping[str, Any], figure: str) -> str:
    lines = ["| loader | settings | seconds | times as long as ours | waiting |", "| --- | --- | --- | --- | --- |"]
    for entry in loaders.values():
        of, waiting = entry[figure], entry["data_wait_share"]
        seconds = f"{of['mean']:.1f} ({min(of['seconds']):.1f}–{max(of['seconds']):.1f})"
        waited = f"{waiting['mean']:.1%} ({min(waiting['runs']):.1%}–{max(waiting['runs']):.1%})"
        settings = entry["loader"]
        lines.append(f"| {entry['title']} | {settings} | {seconds} | {_ratio(of['times_as_long'])} | {waited} |")
    return "\n".join(lines)


def _ratio(ratio: Mapping[str, float] | None) -> str:
    return "–" if ratio is None else f"{ratio['mean']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})"


def _code(lines: Sequence[str]) -> str:
    return "\n".join(["```", *lines, "```"])


def _resumed(found: Mapping[str, Any]) -> str:
    at = found["broken_off_after"]
    return (
        f"The {found['model']} model, broken off after batch {at['batch']} of epoch {at['epoch']} (counted from 0) and "
        f"continued in another process: the losses of all {len(found['resumed']):,} batches are those of the "
        "uninterrupted training, to the last bit."
    )
