"""NVIDIA DALI: a pipeline that loads a dataset, as a class that takes DataLoader's arguments.

    loader = autotune.best_loader(dataset, loader_class=DaliLoader)

DALI is no dependency: its packages are made for one version of CUDA each (`nvidia-dali-cuda120`,
`nvidia-dali-cuda130`), and work without a GPU too. Importing this module does not need it, making a loader does.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from autotune.data.randomness import seeded
from autotune.data.samples import Leaf
from autotune.data.stages import apart
from autotune.errors import DatasetError, MissingExtraError, SpecError
from autotune.integrations.dali_source import Parts, Source
from autotune.integrations.numbered_batches import whole_epoch
from autotune.spec.config import DEFAULT_PREFETCH_FACTOR


class DaliLoader(DataLoader[Any]):
    """Loads a map-style dataset through a DALI pipeline on the CPU: the samples of torch's DataLoader in its order.

    Each worker process of DALI reads whole batches of the sampler's indices from the dataset, and every tensor,
    array and number of a sample becomes a batch of its own in the pipeline. Subclasses put DALI's operators between,
    in `process`. Batches are collated as torch does.

    All of DataLoader's arguments are taken, with these limits: the dataset is map-style; there is a batch size or
    batch sampler; workers are forked. Samples share one structure; arrays in it may differ in shape. Samples that draw
    from global random generators differ from torch's, as those of another number of workers do; `get_worker_info()` is
    None in DALI's workers.

    Args:
        dataset: A map-style dataset.
        **arguments: Those of `torch.utils.data.DataLoader`.

    Raises:
        MissingExtraError: DALI is not installed.
        SpecError: An argument lies outside of these limits.
    """

    def __init__(self, dataset: Any, *arguments: Any, **named: Any) -> None:
        _dali()
        super().__init__(dataset, *arguments, **named)
        self._check()
        self._kept: _Pass | None = None
        self._seed: int | None = None

    def process(self, parts: list[Any]) -> list[Any]:
        """Put DALI operators behind the parts of a sample; as it stands, parts stay as they are.

        Args:
            parts: DALI data nodes on the CPU, one for each tensor, array and number of a sample, in its order.

        Returns:
            As many nodes, on the CPU; they take the places of the parts in the sample.
        """
        return parts

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # batches, as torch's own iterator gives them
        self._check()
        if not self.persistent_workers or self._seed is None:
            # torch draws this number where its own iterator is made, from the generator that the sampler uses next
            self._seed = int(torch.empty((), dtype=torch.int64).random_(generator=self.generator).item())
        batches = [list(batch) for batch in whole_epoch(self)]
        running, self._kept = self._kept, None
        if batches and (running is None or not running.begin_again(batches)):
            running = _Pass(self, batches, seed=self._seed)
        return self._batches(running, len(batches))

    def _batches(self, running: _Pass | None, count: int) -> Iterator[Any]:
        if running is None or not count:
            return
        for _ in range(count):
            yield self._finished(running.next_batch())
        running.end()
        if self.persistent_workers:
            self._kept = running

    def _finished(self, samples: list[Any]) -> Any:
        batch = self.collate_fn(samples)
        if self.pin_memory and torch.cuda.is_available():
            from torch.utils.data._utils.pin_memory import pin_memory

            return pin_memory(batch)  # type: ignore[no-untyped-call]
        return batch

    def _check(self) -> None:
        if isinstance(self.dataset, IterableDataset):
            raise SpecError("DaliLoader needs a map-style dataset, got an iterable one; use torch's DataLoader")
        if self.batch_sampler is None:
            raise SpecError("DaliLoader needs a batch_size or a batch_sampler, got batch_size=None")
        context = self.multiprocessing_context
        start = context if isinstance(context, str) or context is None else context.get_start_method()
        if start not in (None, "fork"):
            raise SpecError(f"DaliLoader forks its workers, got multiprocessing_context={start!r}; leave it None")


class _Pass:
    """A pipeline with its processes, for one pass over the dataset or, kept, for one after the other.

    Args:
        loader: Dataset, number of workers and operators.
        batches: Indices of each batch.
        seed: Seed of the global random generators in workers.
    """

    def __init__(self, loader: DaliLoader, batches: Sequence[Sequence[int]], *, seed: int) -> None:
        with seeded(0):  # a sample that is only looked at must not move the global generators
            self._first = Parts.of(apart(loader.dataset)[batches[0][0]])
        self._source = Source(
            loader.dataset,
            self._first,
            batches,
            workers=loader.num_workers,
            seed=seed,
            initialise=loader.worker_init_fn,
        )
        self._most = max(map(len, batches))
        self._timeout_s = loader.timeout
        self._given = 0
        self._pipeline = self._built(loader)

    def begin_again(self, batches: Sequence[Sequence[int]]) -> bool:
        """Begin another pass in the same processes; False where its batches are larger or more than they can be."""
        if max(map(len, batches)) > self._most or not self._source.take(batches):
            return False
        self._pipeline.reset()
        self._given = 0
        return True

    def next_batch(self) -> list[Any]:
        """Give the samples of the next batch.

        Raises:
            RuntimeError: It took longer than the loader's `timeout`.
            Exception: Whatever the dataset raised in a worker.
        """
        overdue = threading.Event()
        limit = threading.Timer(self._timeout_s, self._kill, (overdue,)) if self._timeout_s else None
        if limit is not None:
            limit.start()
        try:
            outputs = self._pipeline.run()
        except Exception as error:
            if overdue.is_set():  # as torch says it
                raise RuntimeError(f"DataLoader timed out after {self._timeout_s} seconds") from None
            told = self._source.error_of(self._given)
            if told is None:
                raise
            told.add_note(str(error))  # with the traceback in the worker
            raise told from None
        finally:
            if limit is not None:
                limit.cancel()
        self._given += 1
        return self._first.samples([_arrays(output) for output in outputs])

    def end(self) -> None:
        """Let the pipeline see the end of the pass, so that it can begin again.

        Raises:
            DatasetError: It gives more batches than there are.
        """
        try:
            self._pipeline.run()
        except StopIteration:
            return
        raise DatasetError("the DALI pipeline gave more batches than were asked for")

    def _kill(self, overdue: threading.Event) -> None:
        overdue.set()
        for pid in self._source.pids():  # DALI ends all others, and what waits for them
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _built(self, loader: DaliLoader) -> Any:
        dali, workers = _dali(), loader.num_workers
        ahead = {"prefetch_queue_depth": workers * (loader.prefetch_factor or DEFAULT_PREFETCH_FACTOR)}
        pipeline = dali.Pipeline(
            batch_size=self._most,
            num_threads=1,
            device_id=None,
            prefetch_queue_depth=1,  # else an error of a later batch would come before this one is handed out
            py_num_workers=max(1, workers),
            py_start_method="fork",
        )
        with pipeline:
            parts = dali.fn.external_source(
                source=self._source,
                num_outputs=len(self._first.dtypes),
                batch=True,
                batch_info=True,
                parallel=workers > 0,
                **(ahead if workers else {}),
            )
            processed = loader.process(list(parts))
            if len(processed) != len(parts):
                raise SpecError(f"process() gives one node for each of {len(parts)} parts, got {len(processed)}")
            pipeline.set_outputs(*processed)
        pipeline.build()
        return pipeline


def _arrays(output: Any) -> list[Leaf]:
    """Copy an output of the pipeline, whose memory DALI uses again: in one go where all arrays have one shape."""
    if output.is_dense_tensor():
        block = np.array(output.as_array())
        return [block[place, ...] for place in range(len(block))]  # the dots keep numbers arrays
    return [np.array(output.at(place)) for place in range(len(output))]


def _dali() -> Any:
    """Import DALI.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        importlib.import_module("nvidia.dali.fn")
        return importlib.import_module("nvidia.dali")
    except ModuleNotFoundError as error:
        if error.name not in ("nvidia", "nvidia.dali", "nvidia.dali.fn"):
            raise
        raise MissingExtraError(
            "DaliLoader needs the package 'nvidia.dali'; install it by: pip install 'dataloader-autotune[dali]', or "
            "that of your CUDA version (nvidia-dali-cuda120, nvidia-dali-cuda130)"
        ) from error
