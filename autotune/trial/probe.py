"""The work of a probe: where the time and memory of a batch go, before anything is searched."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean, pstdev
from time import perf_counter, process_time
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, default_collate

from autotune.constants import PROBE_PIECE_S, PROBE_SAMPLES_S
from autotune.data.batch_buffers import BatchBuffers
from autotune.data.build import make_loader
from autotune.data.decoders import offered_decoders, with_decoder
from autotune.data.facts import sample_nbytes
from autotune.data.stages import Augmentation, decode_stage, has_augment, is_staged, read_stage
from autotune.errors import DatasetError
from autotune.measure.around import Around
from autotune.measure.consumers import BatchTaker
from autotune.measure.headroom import Collate, MemoryStore, bound_samples_per_s
from autotune.measure.memory import returned_at_once
from autotune.spec import Bound, Line, Profile
from autotune.trial.conditions import length_of
from autotune.trial.failures import Circumstances, classify
from autotune.units import MIB

_logger = logging.getLogger(__name__)

_SAMPLES_MIN, _SAMPLES_MAX = 4, 256
_DECODER_SAMPLES = 6
_STAGE_SAMPLES = 24
_KEPT_BYTES = 64 * MIB
"""Samples that are kept to make batches of; more would only repeat what these show."""
_STORE_BYTES = 128 * MIB
"""Store that whole batches are gathered from: larger than the processor's caches."""
_BATCHES_MIN = 3
_MEMORY_BATCHES = 3
"""Batches whose peak is taken: an optimizer makes its state in the first one."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is probed.

    Attributes:
        dataset: The dataset, in plain files.
        consume: Makes the consumer of batches of a size.
        collate: The caller's own collating; None is torch's.
        surround: Makes what watches memory.
        batch_sizes: Sizes that are looked at, as far as the memory limit lets them.
        seed: Seed of the choice of samples.
    """

    dataset: Dataset[Any]
    consume: Callable[[int], BatchTaker]
    collate: Collate | None
    surround: Callable[[], Around]
    batch_sizes: Sequence[int]
    seed: int


@dataclass
class _Found:
    """Costs by batch size, in seconds and bytes."""

    collate_s: dict[int, float] = field(default_factory=dict)
    gather_s: dict[int, float] = field(default_factory=dict)
    consume_s: dict[int, float] = field(default_factory=dict)
    consume_cpu_s: dict[int, float] = field(default_factory=dict)
    hand_over_s: dict[int, float] = field(default_factory=dict)
    worker_s: dict[int, float] = field(default_factory=dict)
    memory_alone: dict[int, float] = field(default_factory=dict)
    memory_workers: dict[int, float] = field(default_factory=dict)
    bounds_s: dict[int, float] = field(default_factory=dict)


class InMemory(Dataset[Any]):
    """Samples in memory, repeated to a length."""

    def __init__(self, samples: list[Any], length: int) -> None:
        self._samples = samples
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return self._samples[index % len(self._samples)]


def probe(subject: Subject) -> Profile:
    """Look at single samples, then at batches of growing size, until the memory limit.

    Raises:
        MeasurementStoppedError: Even the smallest batch breaks a limit.
        DatasetError: A sample cannot be read.
    """
    started_s = perf_counter()
    samples, timed = _read_samples(subject)
    bytes_each = max(1, round(fmean(sample_nbytes(sample) for sample in samples)))
    rows = max(len(samples), min(length_of(subject.dataset) or len(samples), _STORE_BYTES // bytes_each))
    store = MemoryStore(samples, rows=rows, collate=subject.collate, seed=subject.seed)
    found = _Found()
    around = subject.surround()
    around.begin()
    for batch_size in _weigh_alone(subject, samples, found):
        try:
            _look_at(subject, batch_size, samples=samples, store=store, around=around, found=found)
        except Exception as error:
            if not _breaks_limit(error):
                raise
            break
    around = subject.surround()
    around.begin()
    for batch_size in _weigh_with_worker(subject, samples, found):
        try:
            _hand_over(subject, batch_size, samples=samples, around=around, found=found)
        except Exception as error:
            if not _breaks_limit(error):
                raise
            break
    return _profile(subject, timed, found, wall_s=perf_counter() - started_s)


def _breaks_limit(error: Exception) -> bool:
    """Tell whether a batch was too large: the smaller ones say what there is to say."""
    return classify(error, Circumstances(phase="probe")).infeasible


@dataclass
class _Timed:
    """Seconds of each stage, one number a sample."""

    whole: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    augment: list[float] = field(default_factory=list)


def _read_samples(subject: Subject) -> tuple[list[Any], _Timed]:
    timed, samples, kept_bytes = _Timed(), [], 0
    begun_s = perf_counter()
    for sample in _one_by_one(subject, timed):
        samples += [sample] if kept_bytes < _KEPT_BYTES else []
        kept_bytes += sample_nbytes(sample)
        if len(timed.whole) >= _SAMPLES_MIN and perf_counter() - begun_s > PROBE_SAMPLES_S:
            break
    if not samples:
        raise DatasetError("the dataset must have samples, got an empty one")
    if is_staged(subject.dataset):
        _time_stages(subject, timed)
    return samples, timed


def _one_by_one(subject: Subject, timed: _Timed) -> Iterator[Any]:
    """Give random samples and note what each took; the first one, which opens things, is not noted."""
    dataset = subject.dataset
    if isinstance(dataset, IterableDataset):
        yield from _streamed(dataset, timed)
        return
    for number, place in enumerate(_places(subject, _SAMPLES_MAX)):
        begun_s = perf_counter()
        sample = dataset[place]
        if number:
            timed.whole.append(perf_counter() - begun_s)
        yield sample


def _time_stages(subject: Subject, timed: _Timed) -> None:
    """Time the stages one by one; together they may differ from the whole, which may decode straight from a path."""
    augmentation = Augmentation()
    for place in _places(subject, min(_STAGE_SAMPLES, len(timed.whole))):
        edges = [perf_counter()]
        raw = read_stage(subject.dataset, place)
        edges.append(perf_counter())
        sample = decode_stage(subject.dataset, place, raw)
        edges.append(perf_counter())
        augmentation.apply(subject.dataset, sample, place)
        edges.append(perf_counter())
        for stage, begin, end in zip((timed.read, timed.decode, timed.augment), edges, edges[1:], strict=False):
            stage.append(end - begin)


def _places(subject: Subject, count: int) -> list[int]:
    generator = torch.Generator().manual_seed(subject.seed)
    places: list[int] = torch.randint(length_of(subject.dataset) or 1, (count,), generator=generator).tolist()
    return places


def _streamed(dataset: IterableDataset[Any], timed: _Timed) -> Iterator[Any]:
    begun_s = perf_counter()
    for number, sample in enumerate(islice(iter(dataset), _SAMPLES_MAX)):
        if number:
            timed.whole.append(perf_counter() - begun_s)
        yield sample
        begun_s = perf_counter()


def _weigh_alone(subject: Subject, samples: list[Any], found: _Found) -> list[int]:
    """Find the peak of each batch size where this process loads by itself; give the sizes within the limit.

    Raises:
        MeasurementStoppedError: Even the smallest batch breaks a limit.
    """
    collate = subject.collate or default_collate
    around = subject.surround()
    with returned_at_once():
        around.begin()
        for batch_size in sorted(subject.batch_sizes):
            made = (collate(_drawn(samples, batch_size)) for _ in range(_MEMORY_BATCHES))
            try:
                found.memory_alone[batch_size] = _weighed(made, subject.consume(batch_size), around)
            except Exception as error:
                if not found.memory_alone or not _breaks_limit(error):
                    raise
                break
    return list(found.memory_alone)


def _weigh_with_worker(subject: Subject, samples: list[Any], found: _Found) -> list[int]:
    """Find the peak of each batch size where a worker makes the batches; give the sizes within the limit."""
    around = subject.surround()
    with returned_at_once():
        around.begin()
        for batch_size in sorted(found.bounds_s):
            made = islice(_from_worker(subject, samples, batch_size), _MEMORY_BATCHES)
            try:
                found.memory_workers[batch_size] = _weighed(made, subject.consume(batch_size), around)
            except Exception as error:
                if not _breaks_limit(error):
                    raise
                break
    return list(found.memory_workers)


def _weighed(batches: Iterator[Any], consume: BatchTaker, around: Around) -> float:
    around.begin_window()
    for batch in batches:
        consume(batch)
        del batch
        around.after_batch()
    around.end_window()
    return float(around.peak_bytes)


def _from_worker(subject: Subject, samples: list[Any], batch_size: int) -> Iterator[Any]:
    """Give batches of samples in memory that one worker makes."""
    arguments: dict[str, Any] = {"batch_size": batch_size, "num_workers": 1}
    if subject.collate is not None:
        arguments["collate_fn"] = subject.collate
    batches: Iterator[Any] = iter(make_loader(InMemory(samples, batch_size * 4096), arguments, seed=subject.seed))
    return batches


def _look_at(
    subject: Subject, batch_size: int, *, samples: list[Any], store: MemoryStore, around: Around, found: _Found
) -> None:
    """Collate, consume and gather batches of one size in this process."""
    consume = subject.consume(batch_size)
    collate = subject.collate or default_collate
    collated_s: list[float] = []
    consumed_s: list[float] = []
    cpu_s: list[float] = []
    around.begin_window()
    begun_s = perf_counter()
    while len(collated_s) < _BATCHES_MIN or perf_counter() - begun_s < PROBE_PIECE_S / 2:
        chosen = _drawn(samples, batch_size)
        edges = [perf_counter()]
        batch = collate(chosen)
        edges.append(perf_counter())
        del chosen
        busy_s = process_time()
        consume(batch)
        around.synchronise()
        edges.append(perf_counter())
        cpu_s.append(process_time() - busy_s)
        del batch
        around.after_batch()
        collated_s.append(edges[1] - edges[0])
        consumed_s.append(edges[2] - edges[1])
    around.end_window()
    found.collate_s[batch_size] = _typical(collated_s)
    found.consume_s[batch_size] = _typical(consumed_s)
    found.consume_cpu_s[batch_size] = _typical(cpu_s)
    rate = bound_samples_per_s(
        store, consume, batch_size=batch_size, seconds=PROBE_PIECE_S, memory=BatchBuffers().take,
        after_batch=around.after_batch, synchronise=around.synchronise,
    )  # fmt: skip
    found.bounds_s[batch_size] = batch_size / rate
    found.gather_s[batch_size] = max(0.0, batch_size / rate - found.consume_s[batch_size])


def _drawn(samples: list[Any], batch_size: int) -> list[Any]:
    """Give samples as loading does: of their own, alive until the batch is put together."""
    return [copy.deepcopy(samples[place % len(samples)]) for place in range(batch_size)]


def _hand_over(subject: Subject, batch_size: int, *, samples: list[Any], around: Around, found: _Found) -> None:
    """Let one worker make batches of samples in memory, and see what that costs it and the consuming process."""
    consume = subject.consume(batch_size)
    batches = _from_worker(subject, samples, batch_size)
    consume(next(batches))
    taken, busy_s, waited_s = 0, 0.0, 0.0
    around.begin_window()
    begun_s = perf_counter()
    while taken < _BATCHES_MIN or perf_counter() - begun_s < PROBE_PIECE_S:
        busy_from_s = process_time()
        batch = next(batches)
        busy_s += process_time() - busy_from_s
        consumed_from_s = perf_counter()
        consume(batch)
        around.synchronise()
        waited_s += perf_counter() - consumed_from_s
        del batch
        around.after_batch()
        taken += 1
    spent_s = perf_counter() - begun_s
    del batches
    around.end_window()
    found.hand_over_s[batch_size] = busy_s / taken
    # while the worker is slower than the consumer, the time of a batch is the worker's
    found.worker_s[batch_size] = spent_s / taken if waited_s < spent_s / 2 else found.collate_s[batch_size]


def _profile(subject: Subject, timed: _Timed, found: _Found, *, wall_s: float) -> Profile:
    whole_s = fmean(timed.whole) if timed.whole else 1e-9
    send_s = {size: max(0.0, spent - found.collate_s[size]) for size, spent in found.worker_s.items()}
    consumed_s = sum(found.consume_s.values())
    return Profile(
        sample_s=max(whole_s, 1e-9),
        sample_variation=pstdev(timed.whole) / whole_s if len(timed.whole) > 1 else 0.0,
        read_s=fmean(timed.read) if timed.read else None,
        decode_s=fmean(timed.decode) if timed.decode else None,
        augment_s=fmean(timed.augment) if timed.augment and has_augment(subject.dataset) else None,
        decoders=_decoder_seconds(subject),
        collate=Line.through(found.collate_s),
        gather=Line.through(found.gather_s),
        hand_over=Line.through(found.hand_over_s),
        send=Line.through(send_s),
        consume=Line.through(found.consume_s),
        consume_cpu_share=min(1.0, sum(found.consume_cpu_s.values()) / consumed_s) if consumed_s else 1.0,
        memory_alone=_memory_line(found.memory_alone),
        memory_workers=_memory_line(found.memory_workers),
        bounds=tuple(Bound(batch_size=size, samples_per_s=size / spent) for size, spent in found.bounds_s.items()),
        wall_s=wall_s,
    )


def _decoder_seconds(subject: Subject) -> dict[str, float]:
    """Time each decoder that the dataset offers on a few samples, read and decoded; one that fails is left out."""
    names = offered_decoders(subject.dataset)
    if len(names) < 2:
        return {}
    places = range(min(_DECODER_SAMPLES, length_of(subject.dataset) or 1))
    seconds = {}
    for name in names:
        chosen = with_decoder(subject.dataset, name)
        try:
            chosen[0]
            begun_s = perf_counter()
            for place in places:
                chosen[place]
            seconds[name] = (perf_counter() - begun_s) / len(places)
        except Exception as error:  # noqa: BLE001 - what a decoder raises is up to its library; its trial will tell
            _logger.warning("decoder %s is not timed, as it failed: %s", name, error)
    return seconds


def _memory_line(peaks: dict[int, float]) -> Line | None:
    """Give memory over batch size; one size alone does not tell what is fixed from what each sample takes."""
    return Line.through(peaks) if len(peaks) > 1 else None


def _typical(seconds: Sequence[float]) -> float:
    """Give the lower quartile: the first batches open and allocate, and what a neighbour takes is no cost of ours."""
    ordered = sorted(seconds)
    return ordered[len(ordered) // 4]
