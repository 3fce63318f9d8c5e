"""Batches of a map-style dataset by their number, read wherever they are asked for: process, thread or here."""

from __future__ import annotations

import multiprocessing
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from autotune.data.stages import apart
from autotune.errors import SpecError

KERAS_WORKER = "Keras_worker_"
"""What the names of the processes that Keras starts begin with."""

_SEED_STEP = 1_000_003
_REPEATS = 16
"""How often an epoch may have each sample before its sampler is taken for one that does not end."""
_SMALL_EPOCH = 1_000_000
"""As many positions an epoch may always have."""


class BatchReader:
    """Reads and collates batches as a DataLoader's worker does.

    In a worker process torch computes in one thread (a forked process does not have the threads of its parent, and
    would wait for them), and the global generators are seeded by `(seed, number of the batch)`: what is random there
    does not depend on which worker is free.

    Args:
        dataset: A map-style dataset.
        collate: Makes a batch of a list of samples, or of one sample where batches are single ones.
        lists: Whether the positions of a batch are a list.
        worker_init: Called with a worker's number in each worker process, before its first batch.
        threads: Whether it is called from several threads: each then reads from a copy of the dataset of its own, as
            open files are not for two at once.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        collate: Callable[[Any], Any],
        *,
        lists: bool,
        worker_init: WorkerStart | None = None,
        threads: bool = False,
    ) -> None:
        self.dataset = dataset
        self._collate = collate
        self._lists = lists
        self._worker_init = worker_init
        self._copies = _ThreadCopies(dataset) if threads else None
        self._begun = False

    def read(self, positions: Any, *, number: int, seed: int) -> Any:
        """Read one batch.

        Args:
            positions: Where its samples are.
            number: Number of the batch.
            seed: Seed of the epoch.
        """
        if multiprocessing.current_process().name.startswith(KERAS_WORKER):
            self._enter_worker(number, seed)
        dataset: Any = self.dataset if self._copies is None else self._copies.own()
        if not self._lists:
            return self._collate(dataset[positions])
        places = positions.tolist() if isinstance(positions, np.ndarray) else positions
        whole = getattr(dataset, "__getitems__", None)
        return self._collate(whole(places) if whole else [dataset[place] for place in places])

    def _enter_worker(self, number: int, seed: int) -> None:
        seed_globally(seed + _SEED_STEP * number)
        if not self._begun:
            self._begun = True
            torch.set_num_threads(1)
            if self._worker_init is not None:
                self._worker_init.begin()


class WorkerStart:
    """Calls a DataLoader's `worker_init_fn` with numbers from 0 on, one for each process.

    Args:
        function: The function.
        context: Context of the processes.
    """

    def __init__(self, function: Callable[[int], object], context: Any) -> None:
        self._function = function
        self._next = context.Value("i", 0)

    def begin(self) -> None:
        """Call it in this process."""
        with self._next.get_lock():
            number = self._next.value
            self._next.value += 1
        self._function(number)


class _ThreadCopies:
    """A copy of a dataset for each thread, so that none reads from a file that another has open."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._unread = apart(dataset)
        self._of_thread = threading.local()

    def own(self) -> Any:
        """Give the copy of this thread."""
        mine = getattr(self._of_thread, "dataset", None)
        if mine is None:
            mine = self._of_thread.dataset = apart(self._unread)
        return mine


def seed_globally(seed: int) -> None:
    """Seed the generators of Python, numpy and torch in a worker process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # the global one is what datasets draw from
    torch.manual_seed(seed % 2**63)


def epoch_seed(first: int, epoch: int) -> int:
    """Give the seed of an epoch, where workers were seeded once; that of epoch 0 is the first one."""
    return first if epoch == 0 else int(np.random.SeedSequence([first, epoch]).generate_state(1, np.uint64)[0] >> 1)


def whole_epoch(loader: DataLoader[Any]) -> list[Any]:
    """Take all batches of an epoch from a loader's sampler: lists of positions, or positions where it does not batch.

    Raises:
        SpecError: The sampler does not end: it tells no length that it keeps to, and gives far more positions than
            there are samples.
    """
    sampler: Iterable[Any] = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    expected = _length(sampler)
    most = max(_SMALL_EPOCH, _REPEATS * (_length(loader.dataset) or 0))
    batches: list[Any] = []
    positions = 0
    for batch in sampler:
        batches.append(batch)
        positions += max(1, len(batch)) if isinstance(batch, Sized) else 1
        if positions > most and (expected is None or len(batches) > expected):
            raise SpecError(
                f"a sampler must end with its epoch, got {positions:,} positions from {type(sampler).__qualname__} and "
                f"no end; let it stop, or give it a length, or load with torch's DataLoader, which asks for them "
                "one by one"
            )
    return batches


def _length(sized: Any) -> int | None:
    try:
        return len(sized)
    except (TypeError, NotImplementedError):  # that of a BatchSampler asks a sampler that may have none
        return None


def compact(batches: Sequence[Any]) -> list[Any]:
    """Keep lists of positions as arrays: a list grows in every forked worker as its references are counted."""
    return [
        np.array(batch, dtype=np.int64)
        if isinstance(batch, list | tuple) and all(type(place) is int for place in batch)
        else batch
        for batch in batches
    ]


class SentTensor(NamedTuple):
    """A tensor on its way between processes: an array, as the file descriptors behind shared tensors outlive no worker.

    Attributes:
        array: Its values.
        dtype: Its type, where numpy has none like it and the array holds the bits.
    """

    array: npt.NDArray[Any]
    dtype: torch.dtype | None = None


def sendable(batch: Any) -> Any:
    """Turn the tensors of a batch into what travels as bytes."""
    return _mapped(batch, _sent)


def received(batch: Any) -> Any:
    """Turn what travelled back into tensors."""
    return _mapped(batch, _arrived)


def as_arrays(batch: Any) -> Any:
    """Turn the tensors of a batch into numpy arrays, as Keras takes them, and lists into tuples."""
    found = _mapped(batch, _array)
    return tuple(found) if isinstance(found, list) else found


def _mapped(batch: Any, change: Callable[[Any], Any]) -> Any:
    changed = change(batch)
    if changed is not None:
        return changed
    if isinstance(batch, Mapping):
        return {key: _mapped(part, change) for key, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_mapped(part, change) for part in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_mapped(part, change) for part in batch)
    return batch


def _sent(part: Any) -> Any:
    if not isinstance(part, torch.Tensor) or part.layout is not torch.strided or part.is_quantized:
        return None
    plain = part.detach().cpu()
    if plain.dtype is torch.bfloat16:
        return SentTensor(plain.view(torch.int16).numpy(), torch.bfloat16)
    return SentTensor(plain.resolve_conj().resolve_neg().numpy())


def _arrived(part: Any) -> Any:
    if not isinstance(part, SentTensor):
        return None
    tensor = torch.from_numpy(part.array)
    return tensor if part.dtype is None else tensor.view(part.dtype)


def _array(part: Any) -> Any:
    if not isinstance(part, torch.Tensor):
        return None
    plain = part.detach().cpu()
    return plain if plain.dtype is torch.bfloat16 else plain.numpy()


__all__ = [
    "BatchReader",
    "SentTensor",
    "WorkerStart",
    "as_arrays",
    "compact",
    "epoch_seed",
    "received",
    "seed_globally",
    "sendable",
    "whole_epoch",
]
