"""The caller's own arguments of a DataLoader: what excludes what, and what is without use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autotune.errors import SpecError
from autotune.resolve.question import Question

if TYPE_CHECKING:
    from torch.utils.data import Dataset

_NEEDS_WORKERS = ("timeout", "multiprocessing_context")
"""Arguments that torch refuses without workers, where they have no effect anyway."""


def check_order(dataset: Dataset[Any], shuffle: bool | None, arguments: Mapping[str, Any]) -> None:
    """Refuse shuffling beside what has an order of its own."""
    from torch.utils.data import IterableDataset

    if not shuffle:
        return
    for name in ("sampler", "batch_sampler"):
        if name in arguments:
            raise SpecError(f"{name} excludes shuffle, got shuffle=True with both; leave shuffle None")
    if isinstance(dataset, IterableDataset):
        raise SpecError("an iterable dataset has its own order, got shuffle=True; shuffle inside the dataset")


def check_streaming(question: Question, arguments: Mapping[str, Any]) -> None:
    """Refuse the order of an archive beside another order."""
    if question.streams and question.dataset.iterable:
        raise SpecError("an iterable dataset has its own order, got order='streaming'; leave order out")
    for name in ("sampler", "batch_sampler"):
        if question.streams and name in arguments:
            raise SpecError(
                f"order='streaming' has the order of the archive and excludes {name}; leave one of them out"
            )


def batch_size_of(batch_sampler: Any) -> int | None:
    """Give the batch size that a batch sampler tells; None where it tells none."""
    size = getattr(batch_sampler, "batch_size", None)
    return size if isinstance(size, int) and size > 0 else None


def fitting(arguments: Mapping[str, Any], num_workers: int) -> dict[str, Any]:
    """Give the arguments that torch takes with so many workers."""
    return {name: value for name, value in arguments.items() if num_workers or name not in _NEEDS_WORKERS}
