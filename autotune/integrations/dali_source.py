"""What DALI's worker processes read: batches of a dataset's samples, taken apart into arrays."""

from __future__ import annotations

import json
import operator
import os
import pickle
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from autotune.data.samples import Leaf, Skeleton, put_together, take_apart
from autotune.data.shared_memory import SharedMemory
from autotune.errors import ArchiveError, DatasetError, SpecError
from autotune.units import KIB

_KINDS = "biuf"
"""Kinds of numpy types that DALI has: truth values, whole and floating-point numbers of up to 64 bits."""
_ERROR_BYTES = 64 * KIB
"""Room for what a worker raises."""


class Source:
    """Reads the batches of a pass in DALI's worker processes, or in this one without workers.

    Which indices a batch has stands in memory that all of them share: the number of batches, then where each one
    begins and ends among the indices, which follow. Before it stand the number of workers that have begun, and each
    one's process.

    Args:
        dataset: The dataset.
        first: What its samples are made of.
        batches: Indices of each batch of the first pass.
        workers: Worker processes.
        seed: Seed of the global random generators in workers.
        initialise: Called once in each worker with its number.
    """

    def __init__(
        self,
        dataset: Any,
        first: Parts,
        batches: Sequence[Sequence[int]],
        *,
        workers: int,
        seed: int,
        initialise: Callable[[int], None] | None,
    ) -> None:
        self._dataset = dataset
        self._first = first
        self._seed = seed
        self._initialise = initialise
        self._home = self._process = os.getpid()
        self._worker = 0
        self._errors = [SharedMemory(_ERROR_BYTES) for _ in range(workers)]
        begun = 1 + workers
        self._memory = SharedMemory(8 * (begun + _numbers_of(batches)))
        shared = self._memory.array(0, self._memory.size_bytes).view(np.int64)
        self._begun, self._numbers = shared[:begun], shared[begun:]
        self.take(batches)

    def pids(self) -> list[int]:
        """Give the worker processes that have read something."""
        return [int(pid) for pid in self._begun[1:] if pid]

    def take(self, batches: Sequence[Sequence[int]]) -> bool:
        """Write down the batches of a pass; False where there is no room for them."""
        edges = np.cumsum([0, *map(len, batches)])
        flat = [len(batches), *edges.tolist(), *(_whole_number(index) for batch in batches for index in batch)]
        if len(flat) > len(self._numbers):
            return False
        self._numbers[: len(flat)] = flat
        return True

    def __call__(self, info: Any) -> tuple[list[Leaf], ...]:
        """Read one batch: for each part of a sample, its arrays."""
        self._enter_process()
        try:
            return self._read(info)
        except StopIteration:
            raise
        except Exception as error:
            self._tell(error, info.iteration)
            raise

    def error_of(self, batch: int) -> Exception | None:
        """Give what a worker raised for a batch: DALI itself hands on nothing but the text."""
        for memory in self._errors:
            place, size = memory.array(0, 16).view(np.int64).tolist()
            if size and place == batch:
                told = pickle.loads(memory.array(16, size).tobytes())  # noqa: S301  (our own worker wrote it)
                return told if isinstance(told, Exception) else None
        return None

    def _tell(self, error: Exception, batch: int) -> None:
        """Write down what was raised, where it can be sent; the first of each worker, as the pass ends with it."""
        if os.getpid() == self._home:
            return
        memory = self._errors[self._worker]
        told = memory.array(0, 16).view(np.int64)
        with suppress(Exception):
            data = pickle.dumps(error)
            pickle.loads(data)  # noqa: S301  (not every exception can be made from what it pickles)
            if not told[1] and len(data) <= _ERROR_BYTES - 16:
                memory.array(16, len(data))[:] = np.frombuffer(data, np.uint8)
                told[:] = batch, len(data)

    def _read(self, info: Any) -> tuple[list[Leaf], ...]:
        count = int(self._numbers[0])
        if info.iteration >= count:
            raise StopIteration
        start, stop = self._numbers[1 + info.iteration : 3 + info.iteration].tolist()
        indices = self._numbers[2 + count :][start:stop].tolist()
        whole = getattr(self._dataset, "__getitems__", None)
        samples = whole(indices) if whole is not None else [self._dataset[index] for index in indices]
        if len(samples) != len(indices):
            raise DatasetError(
                f"DALI needs every sample of a batch, got {len(samples)} of {len(indices)} from "
                f"{type(self._dataset).__qualname__}; let it put others in place of broken ones "
                "(on_broken='substitute'), or leave them out beforehand (readable())"
            )
        taken = [self._first.leaves(sample, index) for sample, index in zip(samples, indices, strict=True)]
        return tuple(list(column) for column in zip(*taken, strict=True))

    def _enter_process(self) -> None:
        """Do at the first call in a worker what torch does when one of its own starts."""
        if os.getpid() == self._process:
            return
        self._process = os.getpid()
        torch.set_num_threads(1)
        with self._memory.locked():  # workers count themselves
            self._worker = int(self._begun[0])
            self._begun[0] += 1
            self._begun[1 + self._worker] = self._process
        seed = self._seed + self._worker
        random.seed(seed)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  (the generator that datasets draw from)
        if self._initialise is not None:
            self._initialise(self._worker)


class Parts:
    """The structure that all samples share, and the types of its parts.

    Args:
        skeleton: The structure as text.
        dtypes: Type of each part.
    """

    def __init__(self, skeleton: str, dtypes: Sequence[np.dtype[Any]]) -> None:
        self.dtypes = tuple(dtypes)
        self._skeleton = skeleton
        self._tree: Skeleton = json.loads(skeleton)

    @classmethod
    def of(cls, sample: Any) -> Parts:
        """Give the structure of a sample.

        Raises:
            DatasetError: It holds something that DALI has no type for.
        """
        skeleton, leaves = _apart(sample)
        for leaf in leaves:
            if leaf.dtype.kind not in _KINDS or leaf.dtype.itemsize > 8 or not leaf.dtype.isnative:
                raise DatasetError(f"DALI has no type for arrays of {leaf.dtype}; convert them in the dataset")
        if not leaves:
            raise DatasetError(f"DALI loads arrays and numbers, got samples without any: {skeleton}")
        return cls(skeleton, [leaf.dtype for leaf in leaves])

    def leaves(self, sample: Any, index: int) -> list[Leaf]:
        """Take a sample apart.

        Raises:
            DatasetError: It is built in another way than the first one.
        """
        skeleton, leaves = _apart(sample)
        dtypes = tuple(leaf.dtype for leaf in leaves)
        if skeleton != self._skeleton or dtypes != self.dtypes:
            raise DatasetError(
                f"DALI needs samples of one structure, got {skeleton} with {_named(dtypes)} for sample {index} and "
                f"{self._skeleton} with {_named(self.dtypes)} for the first; use torch's DataLoader"
            )
        return [np.asarray(leaf, order="C") for leaf in leaves]

    def samples(self, columns: Sequence[Sequence[Leaf]]) -> list[Any]:
        """Put the samples of a batch together from the arrays of each part."""
        return [put_together(self._tree, leaves) for leaves in zip(*columns, strict=True)]


def _apart(sample: Any) -> tuple[str, list[Leaf]]:
    try:
        return take_apart(sample)
    except ArchiveError as error:
        raise DatasetError(f"a sample cannot be given to DALI: {error}") from error


def _whole_number(index: Any) -> int:
    try:
        return operator.index(index)
    except TypeError:
        raise SpecError(f"DaliLoader needs whole numbers from its sampler, got {index!r}") from None


def _numbers_of(batches: Sequence[Sequence[int]]) -> int:
    """Give how many numbers the batches of a pass take, with room for as many batches as there are indices more."""
    return 2 + 2 * len(batches) + 2 * sum(map(len, batches))


def _named(dtypes: Sequence[np.dtype[Any]]) -> str:
    return ", ".join(str(dtype) for dtype in dtypes)
