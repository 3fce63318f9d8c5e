"""The clock of `training.py`: one training in an interpreter of its own, timed from its loaders to its last epoch.

    echo '{"data": ..., "model": ..., "loader": "default", "epochs": 5, ...}' | python training_clock.py

Reads one request (JSON) on standard input and answers with one document: seconds at the end of each epoch, the figures
of the training's history, the loss of each batch, and what the loader says of itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from training_data import config_of, model_of, parts_of

import autotune
from autotune.resolve.provenance import resolution_of
from autotune.training import Callback, Trainer
from autotune.training.metrics import SegmentationMetrics

RULE_WORKERS = 4
"""Workers of seed 0's example, beside batches of 16."""
_HISTORY = ("train_loss", "val_loss", "val_iou", "data_wait_share", "first_batch_s", "train_s")

Loaders = tuple[Any, Any]
Parts = tuple[Dataset[Any], Dataset[Any]]


class BrokenOffError(Exception):
    """The training was broken off where the request said."""


class Watch(Callback):
    """Takes the time at the end of each epoch and the loss of each batch.

    Args:
        started_s: Reading of the clock when the training's loaders began to be made.
        stop_at: Epoch and batch after which the training is saved and broken off; None goes to the end.
        checkpoint: Where it is saved.
    """

    def __init__(self, started_s: float, stop_at: list[int] | None, checkpoint: str | None) -> None:
        self._started_s = started_s
        self._stop_at = stop_at
        self._checkpoint = checkpoint
        self.ended_s: list[float] = []
        self.losses: list[float] = []

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note a loss, and break off where that was asked for."""
        self.losses.append(logs["loss"])
        if self._checkpoint is not None and self._stop_at == [logs["epoch"], batch]:
            self.trainer.save_checkpoint(self._checkpoint)
            raise BrokenOffError

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note the time."""
        del epoch, logs
        self.ended_s.append(time.perf_counter() - self._started_s)


def default(parts: Parts, request: Mapping[str, Any]) -> Loaders:
    """Give PyTorch's default loaders."""
    return _torch(parts, request, num_workers=0)


def rule(parts: Parts, request: Mapping[str, Any]) -> Loaders:
    """Give loaders with as many workers as seed 0's example has."""
    return _torch(parts, request, num_workers=RULE_WORKERS)


def resolved(parts: Parts, request: Mapping[str, Any]) -> Loaders:
    """Give the loaders that a study before found best; without one this ends the run."""
    train, val = parts
    common = {"batch_size": request["batch_size"], "home": request["home"]}
    loader = autotune.best_loader(train, shuffle=True, generator=_generator(request), **common)
    found = resolution_of(loader)
    if found is None or found.match != "exact":
        raise SystemExit(f"the study before must answer for its own data, got {found}")
    return loader, autotune.best_loader(val, **common)


def online(parts: Parts, request: Mapping[str, Any]) -> Loaders:
    """Give a loader that finds its settings while training, where nothing is known; validation loads by default."""
    train, _ = parts
    loader = autotune.online_loader(
        train,
        batch_size=request["batch_size"],
        shuffle=True,
        generator=_generator(request),
        home=request["empty_home"],
        epochs=request["online_epochs"],
    )
    return loader, default(parts, request)[1]


LOADERS: Mapping[str, Callable[[Parts, Mapping[str, Any]], Loaders]] = {
    "resolved": resolved,
    "online": online,
    "default": default,
    "rule": rule,
}


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Train as a request says, and tell what happened."""
    parts = parts_of(request["data"])
    model = model_of(request["model"], request["seed"])
    SegmentationMetrics()  # what it imports is no part of a training
    started_s = time.perf_counter()
    train_loader, val_loader = LOADERS[request["loader"]](parts, request)
    resumes = request.get("resume")
    watch = Watch(started_s, request.get("stop_at"), None if resumes else request.get("checkpoint"))
    config = config_of(request["epochs"], request["seed"])
    trainer = Trainer(model, config, train_loader, val_loader, callbacks=[watch])
    if resumes:
        trainer.load_checkpoint(request["checkpoint"])
    with suppress(BrokenOffError):
        trainer.train()
    return {
        "ended_s": watch.ended_s,
        "batch_losses": watch.losses,
        **{name: trainer.history.get(name, []) for name in _HISTORY},
        "loader": trainer.loader_tags["autotune.loader"],
        "online": _told(train_loader) if request["loader"] == "online" else None,
        "batches": len(train_loader),
        "samples": [len(part) for part in parts],  # type: ignore[arg-type]  # map-style
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threads": torch.get_num_threads(),
    }


def _torch(parts: Parts, request: Mapping[str, Any], *, num_workers: int) -> Loaders:
    train, val = parts
    common: dict[str, Any] = {"batch_size": request["batch_size"], "num_workers": num_workers}
    return DataLoader(train, shuffle=True, generator=_generator(request), **common), DataLoader(val, **common)


def _generator(request: Mapping[str, Any]) -> torch.Generator:
    return torch.Generator().manual_seed(request["seed"])


def _told(loader: Any) -> dict[str, Any]:
    """Give what an online loader tried and came to."""
    report = loader.report
    return {
        "outcome": report.outcome,
        "setting": report.setting.label(),
        "why": report.why,
        "switching_s": report.switching_s,
        "tried_s": report.tried_s,
        "log": str(report).splitlines(),
    }


def main() -> None:
    """Answer one request."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    found = run(json.load(sys.stdin))
    with answers:
        json.dump(found, answers)


if __name__ == "__main__":
    main()
