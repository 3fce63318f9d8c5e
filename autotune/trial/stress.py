"""What a configuration must bear before it is handed out: the largest samples, and an evaluation pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from time import perf_counter
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, default_collate

from autotune.data.facts import describe_sample, sample_nbytes
from autotune.measure.around import Around
from autotune.measure.consumers import BatchTaker, StepConsumer

_LOOK_AT_S = 1.0
"""Longest time for finding large samples, where samples vary."""
_LOOK_AT_FIRST = 8
_REPEATS = 2
"""Steps on the large batch: optimizers and allocators take more in the second one."""
_EVALUATED = 3


def stress(
    dataset: Dataset[Any],
    loader: Iterable[Any],
    *,
    consume: BatchTaker,
    around: Around,
    batch_size: int,
    collate: Callable[[list[Any]], Any] | None,
    seed: int,
) -> None:
    """Take a batch of nothing but the largest sample that is found, then make an evaluation pass.

    Args:
        dataset: The dataset as the configuration has it.
        loader: Its loader.
        consume: Takes batches.
        around: Watches memory, and stops what breaks a limit.
        batch_size: Samples in a batch.
        collate: The caller's own collating; None is torch's.
        seed: Seed of the samples that are looked at.

    Raises:
        MeasurementStoppedError: A limit was passed.
    """
    evaluate = consume.evaluate if isinstance(consume, StepConsumer) else None
    around.begin_window()
    if not isinstance(dataset, IterableDataset):
        largest = _largest_sample(dataset, seed)
        for _ in range(_REPEATS):
            _take(consume, (collate or default_collate)([largest] * batch_size), around)
        if evaluate is not None:
            _take(evaluate, (collate or default_collate)([largest] * batch_size), around)
    if evaluate is not None:
        for batch in islice(iter(loader), _EVALUATED):
            _take(evaluate, batch, around)
    around.synchronise()
    around.end_window()


def _take(consume: BatchTaker, batch: Any, around: Around) -> None:
    consume(batch)
    around.after_batch()


def _largest_sample(dataset: Any, seed: int) -> Any:
    """Give the largest of the samples that the time allows to look at; any one where the first few are alike."""
    length = len(dataset)
    places = torch.randperm(length, generator=torch.Generator().manual_seed(seed)).tolist()
    first = [dataset[place] for place in places[:_LOOK_AT_FIRST]]
    largest = max(first, key=sample_nbytes)
    if len({describe_sample(sample) for sample in first}) == 1:
        return largest
    began_s = perf_counter()
    for place in places[_LOOK_AT_FIRST:]:
        if perf_counter() - began_s > _LOOK_AT_S:
            break
        largest = max(largest, dataset[place], key=sample_nbytes)
    return largest
