"""The neutral clock of the rivals benchmark: whole epochs of one loader, in an interpreter of its own.

    echo '{"dataset": ..., "consumer": ..., "config": ..., "seconds": 2}' | python studies/benchmarks/rivals_clock.py

Reads one request (JSON) on standard input and answers with one document. None of autotune's measuring code is used: a
warm-up epoch, then epochs from `iter()` to the last batch until the seconds are over, with what lies between them.
What needs an archive, a cache or another decoder is put together by `autotune.apply`, as in anybody's training script;
everything else is a plain `DataLoader` around the dataset.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


def main() -> None:
    """Answer one request."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    request = json.load(sys.stdin)
    found = build(request) if request.get("build") else clock(request)
    with answers:
        json.dump(found, answers)


def build(request: Mapping[str, Any]) -> dict[str, float]:
    """Build the archive that a configuration reads, so that no clocked run pays for it."""
    started_s = time.perf_counter()
    make_loader(make_dataset(request["dataset"]), request, build_archive=True)
    return {"build_s": time.perf_counter() - started_s}


def clock(
    request: Mapping[str, Any], make: Callable[[Dataset[Any], Mapping[str, Any]], Iterable[Any]] | None = None
) -> dict[str, float]:
    """Time whole epochs and give their rate.

    Args:
        request: What is timed.
        make: Makes the loader; None puts torch's or autotune's around the dataset.
    """
    torch.manual_seed(request["seed"])
    if request.get("threads"):
        torch.set_num_threads(request["threads"])
    dataset = make_dataset(request["dataset"])
    length = len(dataset)  # type: ignore[arg-type]  # map-style
    loader = (make or make_loader)(dataset, request)
    take = make_consumer(request["consumer"])
    warm_up_s = _epoch_s(loader, take, length)
    epochs = 0
    started_s = time.perf_counter()
    while not epochs or time.perf_counter() - started_s < request["seconds"]:
        _epoch_s(loader, take, length)
        epochs += 1
    seconds = time.perf_counter() - started_s
    return {
        "samples_per_s": epochs * length / seconds,
        "epochs": epochs,
        "seconds": seconds,
        "warm_up_s": warm_up_s,
        "threads": torch.get_num_threads(),
    }


def _epoch_s(loader: Iterable[Any], take: Callable[[Any], object], length: int) -> float:
    """Take all batches of an epoch and give its seconds; fewer or more samples than there are end the run."""
    delivered = 0
    started_s = time.perf_counter()
    for batch in loader:
        take(batch)
        delivered += samples_of(batch)
    seconds = time.perf_counter() - started_s
    if delivered != length:
        raise SystemExit(f"an epoch must give the {length} samples of the dataset, got {delivered}")
    return seconds


def make_dataset(source: Mapping[str, Any]) -> Dataset[Any]:
    """Make the dataset that a factory gives."""
    dataset: Dataset[Any] = named(source["factory"])(**source["arguments"])
    return dataset


def make_loader(dataset: Dataset[Any], request: Mapping[str, Any], *, build_archive: bool = False) -> DataLoader[Any]:
    """Put a shuffling loader around a dataset."""
    import autotune

    config = autotune.LoaderConfig.model_validate(request["config"])
    if config.archive == "files" and config.cache == "none" and config.decoder is None:
        return DataLoader(dataset, shuffle=True, **config.dataloader_arguments())
    home = Path(request["home"])
    applied = autotune.apply(
        dataset, config, archive_root=home / "archives", cache_root=home / "cache", build=build_archive
    )
    return DataLoader(applied.dataset, shuffle=True, **applied.arguments)


def make_consumer(consumer: Mapping[str, Any]) -> Callable[[Any], object]:
    """Make what takes the batches: nothing, a sleep as long as a step, or a training step."""
    if consumer["kind"] == "loader":
        return lambda _: None
    if consumer["kind"] == "emulated":
        step_s, sample_s = consumer["step_ms"] / 1000, consumer["step_ms_per_sample"] / 1000
        return lambda batch: time.sleep(step_s + sample_s * samples_of(batch))
    step: Callable[[Any], object] = named(consumer["step"])()
    return step


def samples_of(batch: Any) -> int:
    """Count the samples of a batch: a tensor, or a sequence of tensors."""
    return len(batch) if isinstance(batch, torch.Tensor) else len(batch[0])


def named(path: str) -> Callable[..., Any]:
    """Import what a dotted path `package.module:name` names."""
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


if __name__ == "__main__":
    main()
