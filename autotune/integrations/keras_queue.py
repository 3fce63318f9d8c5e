"""Loaders with DataLoader's arguments whose batches go through Keras's own queue, as `model.fit` reads them."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from autotune.errors import SpecError
from autotune.integrations.keras_package import imported_keras, queue_module
from autotune.integrations.numbered_batches import (
    BatchReader,
    WorkerStart,
    compact,
    epoch_seed,
    received,
    sendable,
    whole_epoch,
)

keras: Any = imported_keras()
_queue: Any = queue_module()

_LOOK_EVERY_S = 1.0
"""How long a batch is waited for before the workers are looked at."""
_END_S = 5.0
"""How long workers may take to end by themselves."""
_FRAMES = 4
"""How far up the caller of `on_epoch_end` is looked for: a subclass or two may stand between."""


class KerasLoader(DataLoader[Any]):
    """A DataLoader that reads through Keras's queue of worker processes: so a study can measure that queue.

    Batches are those of a DataLoader with the same arguments, in the same order. As in `model.fit`, a pool of
    `num_workers` processes starts for each epoch and at most `prefetch_factor * num_workers` batches wait in the queue;
    they travel as bytes, not in shared memory. `persistent_workers` therefore only decides, as in torch, how many
    numbers an epoch draws from the generator, and is False as an attribute. What is random in workers differs from
    epoch to epoch either way.

    Args:
        dataset: A map-style dataset.
        *arguments: Further arguments of DataLoader.
        **named: Arguments of DataLoader by name.

    Raises:
        SpecError: The dataset is iterable, or an argument has no meaning here.
    """

    use_multiprocessing = True

    def __init__(self, dataset: Dataset[Any], *arguments: Any, **named: Any) -> None:
        if isinstance(dataset, IterableDataset):
            raise SpecError(
                "Keras's queue asks for batches by their number, which an iterable dataset (or order='streaming') "
                f"does not have, got {type(dataset).__qualname__}; use torch.utils.data.DataLoader"
            )
        self._draws_once = bool(named.pop("persistent_workers", False))
        self._first_seed: int | None = None
        self._epochs = 0
        super().__init__(dataset, *arguments, **named)
        if not self.in_order:
            raise SpecError("Keras's queue gives batches in order, got in_order=False; leave it out")
        if not self.use_multiprocessing:
            _refuse_for_threads(self)

    @property
    def queue_size(self) -> int:
        """How many batches wait in Keras's queue at most."""
        return self.num_workers * (self.prefetch_factor or 1)

    def draw_batches(self) -> tuple[int, list[Any]]:
        """Begin an epoch as a DataLoader does, and give its seed with the positions of all its batches.

        Raises:
            SpecError: The sampler does not end.
        """
        if self._first_seed is None or not self._draws_once:
            self._first_seed = int(torch.empty((), dtype=torch.int64).random_(generator=self.generator).item())
            self._epochs = 0
        seed = epoch_seed(self._first_seed, self._epochs)
        self._epochs += 1
        return seed, compact(whole_epoch(self))

    def reader(self) -> BatchReader:
        """Give what reads the batches of an epoch."""
        start = None
        if self.worker_init_fn is not None and self.num_workers:
            start = WorkerStart(self.worker_init_fn, self.multiprocessing_context or multiprocessing)
        return BatchReader(
            self.dataset,
            self.collate_fn,
            lists=self.batch_sampler is not None,
            worker_init=start,
            threads=not self.use_multiprocessing and self._has_queue,
        )

    def __iter__(self) -> Any:
        seed, batches = self.draw_batches()
        packed = self.use_multiprocessing and self._has_queue
        numbered = _Numbered(self.reader(), batches, seed=seed, pack=sendable if packed else _as_it_is)
        if not self._has_queue or not batches:
            return map(self._delivered, iter(numbered))
        return _Delivery(self, numbered, received if packed else _as_it_is)

    @property
    def _has_queue(self) -> bool:
        """Whether Keras itself would read ahead: not with a single thread."""
        return self.num_workers > 1 or (self.num_workers > 0 and self.use_multiprocessing)

    def _delivered(self, batch: Any) -> Any:
        if self.pin_memory and torch.cuda.is_available():
            return _pinned(batch)
        return batch


class KerasThreadLoader(KerasLoader):
    """The same through Keras's queue of threads, each of which reads from a copy of the dataset."""

    use_multiprocessing = False


def _refuse_for_threads(loader: KerasLoader) -> None:
    for name in ("worker_init_fn", "multiprocessing_context"):
        if getattr(loader, name) is not None:
            raise SpecError(f"{name} is for worker processes, and this loader has threads; use KerasLoader")


class _Numbered(keras.utils.PyDataset):  # type: ignore[misc]  # Keras is untyped here
    """The batches of one epoch by number, as Keras's queue asks for them."""

    def __init__(self, reader: BatchReader, batches: list[Any], *, seed: int, pack: Callable[[Any], Any]) -> None:
        super().__init__()
        self._reader = reader
        self._batches = batches
        self._seed = seed
        self._pack = pack

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        return self._pack(self._reader.read(self._batches[index], number=index, seed=self._seed))


class _Delivery:
    """The batches of one epoch as they come out of Keras's queue; ends its workers when it is let go."""

    def __init__(self, loader: KerasLoader, numbered: _Numbered, unpack: Callable[[Any], Any]) -> None:
        self._loader = loader
        self._unpack = unpack
        self._left = len(numbered)
        self._closed = False
        self._pool = _Pool(loader)
        self._enqueuer = _queue.OrderedEnqueuer(
            numbered,
            workers=loader.num_workers,
            use_multiprocessing=loader.use_multiprocessing,
            max_queue_size=loader.queue_size,
        )
        self._enqueuer.executor_fn = self._pool.started_by(self._enqueuer.executor_fn)
        self._enqueuer.start()
        self._pool.begun.wait()  # the processes are forked while this thread stands still
        self._answers: Iterator[Any] = self._enqueuer.get()

    def __iter__(self) -> _Delivery:
        return self

    def __next__(self) -> Any:
        if self._closed or not self._left:
            self.close()
            raise StopIteration
        try:
            batch = next(self._answers)
        except BaseException:
            self.close()
            raise
        self._left -= 1
        return self._loader._delivered(self._unpack(batch))  # noqa: SLF001  # its own loader

    def close(self) -> None:
        """End the workers; what they have left to do is thrown away."""
        if self._closed:
            return
        self._closed = True
        self._pool.over = True
        with suppress(Exception):  # what fails now was asked for by nobody
            self._enqueuer.stop()
        self._pool.end(at_once=self._left > 0)
        _forget_workers()

    def __del__(self) -> None:
        if hasattr(self, "_enqueuer") and not sys.is_finalizing():
            self.close()


class _Pool:
    """The pool that Keras's queue hands its work to, watched: a killed worker would leave the queue waiting for ever.

    Args:
        loader: Says how many workers there are and how long a batch may take.

    Attributes:
        begun: Set when the workers run, or could not be started.
        over: Whether nobody waits for batches any more.
    """

    def __init__(self, loader: KerasLoader) -> None:
        self.begun = threading.Event()
        self.over = False
        self._count = loader.num_workers
        self._context = loader.multiprocessing_context
        self._timeout_s = loader.timeout
        self._pool: Any = None
        self._workers: tuple[Any, ...] = ()

    def started_by(self, make: Callable[[Any], Any]) -> Callable[[Any], _Pool]:
        """Give a function that starts Keras's own pool, or one of another context, inside this one."""

        def start(shared: Any) -> _Pool:
            try:
                self._pool = make(shared) if self._context is None else self._pool_of_context(shared)
                self._workers = tuple(self._pool._pool)  # noqa: SLF001  # a pool replaces those that die, and says nothing
            finally:
                self.begun.set()
            return self

        return start

    def apply_async(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> _Answer:
        """Hand over one piece of work."""
        return _Answer(self._pool.apply_async(function, arguments), self)

    def close(self) -> None:
        """Take no more work."""
        self._pool.close()

    def wait(self, answer: Any) -> None:
        """Wait for an answer.

        Raises:
            RuntimeError: A worker died, or the time that a batch may take is over.
        """
        started_s = time.monotonic()
        while not self.over:
            answer.wait(_LOOK_EVERY_S)
            if answer.ready():
                return
            dead = next((worker for worker in self._workers if worker.exitcode is not None), None)
            if dead is not None and not answer.ready():  # with nothing left to do they end by themselves
                raise RuntimeError(f"worker {dead.pid} of Keras's pool ended with exit code {dead.exitcode}")
            if self._timeout_s and time.monotonic() - started_s > self._timeout_s:
                raise RuntimeError(f"no batch came out of Keras's queue for {self._timeout_s} s")

    def end(self, *, at_once: bool) -> None:
        """End the workers: by themselves where they have nothing left to do, else by force.

        Args:
            at_once: Whether they are given no time to end by themselves.
        """
        if self._pool is None:
            return
        if not at_once:
            until_s = time.monotonic() + _END_S
            for worker in self._workers:
                worker.join(max(0.0, until_s - time.monotonic()))
        ending = threading.Thread(target=self._terminate, daemon=True)
        ending.start()
        ending.join(_END_S)
        if ending.is_alive():  # a worker was killed with a lock of the pool, which waits for it
            for worker in (*self._workers, *self._pool._pool):  # noqa: SLF001  # see above
                if hasattr(worker, "kill") and worker.exitcode is None:
                    worker.kill()
                    worker.join(_END_S)
            ending.join(_LOOK_EVERY_S)  # it may have taken note of their end, and not have told yet

    def _terminate(self) -> None:
        self._pool.terminate()
        self._pool.join()

    def _pool_of_context(self, shared: Any) -> Any:
        return self._context.Pool(self._count, _queue.init_pool_generator, (shared, None, self._context.Queue()))


class _Answer:
    """One batch to come; None once nobody waits for it."""

    def __init__(self, result: Any, pool: _Pool) -> None:
        self._result = result
        self._pool = pool

    def get(self) -> Any:
        """Wait for the batch.

        Raises:
            Exception: Whatever reading it raised, or see `_Pool.wait`.
        """
        try:
            self._pool.wait(self._result)
            return None if self._pool.over else self._result.get()
        except BaseException:
            self._pool.over = True  # Keras empties its queue now, and each of these would be waited for
            raise


def forget_leftovers(frame: FrameType | None) -> None:
    """Throw away what Keras keeps of an epoch that it stopped early, called from `on_epoch_end`.

    `fit` reads a batch to build the model, stops its queue, and keeps the batches that waited there for the next
    epoch: that one would have some samples twice and others not at all, and so would all after it. The queue belongs
    to the object that calls `on_epoch_end` and is handed to nobody, so it is looked for among the callers; where Keras
    is built otherwise one day, nothing happens.

    Args:
        frame: The frame of `on_epoch_end`.
    """
    _forget_workers()
    for _ in range(_FRAMES):
        frame = frame.f_back if frame is not None else None
        if frame is None:
            return
        caller = frame.f_locals.get("self")
        if isinstance(caller, _queue.PyDatasetAdapter):
            waiting = getattr(caller.enqueuer, "ready_queue", None)
            while waiting is not None and not waiting.empty():
                waiting.get_nowait()
            return


def _forget_workers() -> None:
    """Take out the numbers that Keras's worker processes write into a pipe when they start, which nobody reads.

    After some thousands of workers the pipe would be full, and workers that end would wait for room in it for ever.
    """
    started = getattr(_queue, "_WORKER_ID_QUEUE", None)
    if started is not None:
        with suppress(Exception):  # a number that is just being written can wait for the next epoch
            while not started.empty():
                started.get_nowait()


def _as_it_is(batch: Any) -> Any:
    return batch


def _pinned(batch: Any) -> Any:
    from torch.utils.data._utils.pin_memory import pin_memory

    return pin_memory(batch)  # type: ignore[no-untyped-call]


__all__ = ["KerasLoader", "KerasThreadLoader", "forget_leftovers"]
