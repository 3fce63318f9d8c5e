"""The figures of `training.py`: seconds to an IoU and in all, waiting, and their ratios to those of our loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from autotune.ratios import ratio_interval

OURS = "resolved"
TITLES: Mapping[str, str] = {
    OURS: "autotune, tuned before",
    "online": "autotune, tuned while training",
    "default": "PyTorch default",
    "rule": "seed 0's example: 4 workers",
}
"""Loaders by their key in the document."""

Run = Mapping[str, Any]
"""What one training answered."""


def losses_of(run: Run) -> dict[str, list[float]]:
    """Give the figures that no loader may change."""
    return {name: run[name] for name in ("batch_losses", "train_loss", "val_loss", "val_iou")}


def figures_of(runs: Mapping[str, Sequence[Run]], *, iou: float) -> dict[str, Any]:
    """Put the trainings of one model together.

    Args:
        runs: Trainings by loader, block by block.
        iou: IoU of validation to reach.
    """
    first = runs[OURS][0]
    reached = next((epoch for epoch, value in enumerate(first["val_iou"]) if value >= iou), None)
    return {
        "data": {name: first[name] for name in ("samples", "batches", "parameters", "threads")},
        "learned": {**{name: first[name] for name in ("train_loss", "val_loss", "val_iou")}, "reached_in": reached},
        "loaders": {loader: _loader(loader, runs, reached) for loader in runs},
        "online_logs": [run["online"]["log"] for run in runs["online"]],
        "losses_identical": True,
    }


def _loader(loader: str, runs: Mapping[str, Sequence[Run]], reached: int | None) -> dict[str, Any]:
    mine = runs[loader]
    waits = [_waiting(run) for run in mine]
    entry: dict[str, Any] = {
        "title": TITLES[loader],
        "loader": mine[0]["loader"] if loader != "online" else mine[-1]["online"]["setting"],
        "all_epochs": _compared(loader, runs, -1),
        "to_iou": None if reached is None else _compared(loader, runs, reached),
        "epoch_s": [fmean(part) for part in zip(*(_each(run["ended_s"]) for run in mine), strict=True)],
        "data_wait_share": {"mean": fmean(waits), "runs": waits},
        "first_batch_s": fmean(run["first_batch_s"][0] for run in mine),
    }
    if loader == "online":
        entry["found"] = [{name: run["online"][name] for name in _FOUND} for run in mine]
    return entry


_FOUND = ("outcome", "setting", "why", "switching_s", "tried_s")


def _compared(loader: str, runs: Mapping[str, Sequence[Run]], epoch: int) -> dict[str, Any]:
    """Give seconds until the end of an epoch, and how many times as long as with our loader, paired by block."""
    mine, ours = ([run["ended_s"][epoch] for run in runs[key]] for key in (loader, OURS))
    ratio = None if loader == OURS else ratio_interval(mine, ours)
    return {"seconds": mine, "mean": fmean(mine), "times_as_long": ratio.model_dump() if ratio else None}


def _waiting(run: Run) -> float:
    """Give the share of a training that was waited for data, first batches apart."""
    waited = sum(share * _rest(run, at) for at, share in enumerate(run["data_wait_share"]))
    return float(waited / sum(_rest(run, at) for at in range(len(run["train_s"]))))


def _rest(run: Run, epoch: int) -> float:
    return float(run["train_s"][epoch] - run["first_batch_s"][epoch])


def _each(ended_s: Sequence[float]) -> list[float]:
    return [after - before for before, after in zip([0.0, *ended_s[:-1]], ended_s, strict=True)]
