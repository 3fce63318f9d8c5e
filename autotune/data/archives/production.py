"""Samples turned into bytes by several processes, and handed over in order."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from autotune.data.archives._base import Progress, sized
from autotune.data.build import make_loader
from autotune.data.stages import apart
from autotune.processes import die_with_parent
from autotune.units import MIB

_CHUNK_BYTES = 2 * MIB
"""Bytes that travel together: enough to make the handing over cheap, little enough for a small `/dev/shm`."""
_CHUNK_SAMPLES_MAX = 256


class Produced(NamedTuple):
    """One sample as a format stores it.

    Attributes:
        note: What the format needs to know beside the bytes; plain values.
        data: The bytes.
    """

    note: Any
    data: bytes | memoryview


Encode = Callable[[Dataset[Any], int], Produced]
"""Reads one sample of a dataset and turns it into bytes; runs in the producing processes, so it must pickle."""


def produce(
    source: Dataset[Any], encode: Encode, *, workers: int = 0, progress: Progress | None = None
) -> Iterator[Produced]:
    """Give every sample of a dataset in order, as `encode` makes it.

    Memory is bounded by some chunks of 2 MiB, or of one sample where that is larger, for each process.

    Args:
        source: A map-style dataset.
        encode: Turns one sample into bytes.
        workers: Processes; 0 works in this one.
        progress: Told after each sample how many are done.

    Raises:
        ArchiveError: A sample cannot be stored.
    """
    count = sized(source)
    first = encode(apart(source), 0)  # so that workers are not forked with files open
    yield first
    if progress is not None:
        progress(1, count)
    size = max(1, min(_CHUNK_SAMPLES_MAX, _CHUNK_BYTES // max(1, len(first.data))))
    # In this process a copy is read too, so that the source stays recognisable: it has nothing open in the end.
    chunks = _Chunks(source if workers else apart(source), encode, count, size)
    done = 1
    for notes, sizes, data in _in_order(chunks, min(workers, len(chunks))):
        view = memoryview(data.numpy())  # type: ignore[arg-type]  # numpy's types leave the buffer out
        start = 0
        for note, length in zip(notes, sizes, strict=True):
            yield Produced(note, view[start : start + length])
            start += length
            done += 1
            if progress is not None:
                progress(done, count)


_Chunk = tuple[list[Any], list[int], torch.Tensor]


class _Chunks(Dataset[_Chunk]):
    """Runs of samples, all but the first sample of the source."""

    def __init__(self, source: Dataset[Any], encode: Encode, count: int, size: int) -> None:
        self.source = source
        self.encode = encode
        self._starts = range(1, count, size)
        self._count = count

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> _Chunk:
        start = self._starts[number]
        places = range(start, min(self._count, start + self._starts.step))
        made = [self.encode(self.source, index) for index in places]
        whole = np.frombuffer(bytearray().join(one.data for one in made), dtype=np.uint8)
        return [one.note for one in made], [len(one.data) for one in made], torch.from_numpy(whole)


def _in_order(chunks: _Chunks, workers: int) -> Iterator[_Chunk]:
    if not len(chunks):
        return
    method = "fork" if workers and "fork" in multiprocessing.get_all_start_methods() else None
    loader = make_loader(
        chunks,
        {"batch_size": None, "num_workers": workers},
        seed=0,
        collate_fn=_unchanged,
        worker_init_fn=partial(_end_with, os.getpid()) if workers else None,
        multiprocessing_context=method,
    )
    yield from loader


def _end_with(builder_pid: int, _worker: int) -> None:
    """End this worker when the builder is killed: it would wait for ever to hand over what nobody takes."""
    die_with_parent(builder_pid)


def _unchanged(chunk: _Chunk) -> _Chunk:
    return chunk
