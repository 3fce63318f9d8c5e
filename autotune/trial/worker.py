"""The work of a trial process: build, prepare, measure, and say what came of it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from autotune.cgroups import count_oom_kills
from autotune.data.apply import Prepared, prepare
from autotune.data.build import make_loader
from autotune.data.device_stage import device_transform_of
from autotune.data.factory import build_dataset, load_callable, load_object
from autotune.data.facts import dataset_facts
from autotune.data.inspect import inspect_dataset
from autotune.data.sharding import shards_itself
from autotune.machine import machine_facts
from autotune.measure.around import Around
from autotune.measure.batches import resolve_device
from autotune.measure.consumers import BatchTaker, make_consumer
from autotune.measure.host import tree_bytes_read
from autotune.measure.limits import check_delivered, check_not_repeated
from autotune.measure.memory import limit_in_bytes
from autotune.measure.pagecache import prepare_page_cache
from autotune.measure.result import assemble
from autotune.measure.throughput import Plan, Throughput, measure_throughput
from autotune.spec import DatasetFacts, MachineFacts, MemoryUse, Phases
from autotune.spec.config import DEFAULT_PREFETCH_FACTOR
from autotune.trial.conditions import (
    cache_limit_bytes,
    full_epoch,
    predict_shared_memory,
    sample_counter,
    source_files,
    take_subset,
    wanted_page_cache,
)
from autotune.trial.failures import Circumstances, classify
from autotune.trial.messages import Order, Report
from autotune.trial.preload import worth_preloading
from autotune.trial.probe import Subject, probe
from autotune.trial.shared_batches import CollatesInWorkers
from autotune.trial.stress import stress
from autotune.trial.uses import archive_use, cache_use

_TELL_EVERY_S = 0.2
"""Shortest time between two reports of how far a preparation is."""
_STALL_S = 60.0
"""Longest wait for one batch; a healthy loader is hardly silent that long, a hung one for ever."""


def work(order: Order, report: Callable[[Report], None]) -> None:
    """Do what was ordered and report it; whatever goes wrong is reported as a failure."""
    trial = Trial(order, report)
    try:
        tasks = {"inspect": trial.inspect, "probe": trial.probe, "run": trial.measure}
        try:
            result = tasks[order.task]()
        finally:
            # torch's handler raises for a lost worker, once, in whatever line the signal comes: here at the latest
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    except BaseException as error:  # noqa: BLE001 - a bad configuration is a result, whatever it raises
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it raised in the one above
        failure = classify(error, trial.circumstances())
        result = Report(failure=failure.replace(memory=trial.memory_so_far()))
    report(result.replace(libraries=worth_preloading()))


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What is measured, before the configuration is applied to it."""

    dataset: Dataset[Any]
    facts: DatasetFacts
    machine: MachineFacts
    payload: dict[str, Any]
    device: torch.device


class Trial:
    """One trial in its own process.

    Args:
        order: What to do.
        report: Sends reports to the tuner.
    """

    def __init__(self, order: Order, report: Callable[[Report], None]) -> None:
        self._order = order
        self._request = order.request
        self._workload = order.request.workload
        self._config = order.request.config
        self._report = report
        self._phase = "start"
        self._seconds: dict[str, float] = {}
        self._fill_s = 0.0
        self._loader_workers: list[BaseProcess] = []
        self._told_pids: tuple[int, ...] = ()
        self._around: Around | None = None
        self._stall_s = 0.0
        self._told_s = 0.0
        self._oom_kills = count_oom_kills()

    def circumstances(self) -> Circumstances:
        """Say what is going on, for the case that it fails."""
        return Circumstances(
            phase=self._phase,
            cache=self._config.cache,
            workers=self._loader_workers,
            silent_s=self._around.silent_s() if self._around else 0.0,
            stall_s=self._stall_s,
            oom_kills=count_oom_kills() - self._oom_kills,
        )

    def memory_so_far(self) -> MemoryUse | None:
        """Give what was seen of memory until now; None before the first batch."""
        return self._around.memory_use(shm_predicted_bytes=None, shm_free_bytes=None) if self._around else None

    def inspect(self) -> Report:
        """Look at dataset and machine."""
        source = self._build()
        with self._in_phase("build"):
            found = inspect_dataset(
                source.dataset,
                source.machine,
                collate_fn=source.payload.get("collate_fn"),
                seed=self._workload.seed,
            )
        return Report(inspection=found.replace(dataset=source.facts))

    def probe(self) -> Report:
        """Look at where the time and memory of a batch go."""
        source = self._build()
        dataset = take_subset(source.dataset, self._workload.subset, seed=self._workload.seed)
        if self._workload.page_cache == "warm":
            with self._in_phase("warm"):
                paths = source_files(Prepared(dataset=dataset, arguments={}))
                prepare_page_cache(paths, wanted_page_cache(paths, "warm", source.machine))
        with self._in_phase("probe"):
            # a model is made once; only what emulates a step goes by the batch size
            step = self._consumer(source, 1) if self._workload.consumer.kind == "step" else None
            found = probe(
                Subject(
                    dataset=dataset,
                    consume=lambda batch_size: step or self._consumer(source, batch_size),
                    collate=source.payload.get("collate_fn"),
                    surround=lambda: self._surround(source, cold_paths=()),
                    batch_sizes=self._request.probe_batch_sizes or (self._config.batch_size,),
                    seed=self._workload.seed,
                )
            )
        return Report(profile=found.replace(host=source.machine.host))

    def measure(self) -> Report:
        """Measure the configuration."""
        source = self._build()
        with self._in_phase("predict"):
            epoch = full_epoch(source.dataset, self._config.batch_size, drop_last=self._workload.drop_last)
            if epoch is not None and not source.facts.iterable:
                check_delivered(epoch)
            predicted, free = predict_shared_memory(source.dataset, self._config, self._request.batch_bytes)
        subset = take_subset(source.dataset, self._workload.subset, seed=self._workload.seed)
        prepared = self._prepare(subset, source)
        with self._in_phase("warm"):
            paths = source_files(prepared)
            wanted = wanted_page_cache(paths, self._workload.page_cache, source.machine)
            page_cache, resident = prepare_page_cache(paths, wanted)
        with self._in_phase("measure"):
            around = self._surround(source, cold_paths=paths if wanted == "cold" else ())
            read_before, load_average = tree_bytes_read(os.getpid()), os.getloadavg()[0]
            found = self._pull(source, prepared, around, epoch=epoch)
            read_after, throttled_s = tree_bytes_read(os.getpid()), around.throttled_s()
            self._check_sharding(prepared.dataset, source.facts, found)
        with self._in_phase("report"):
            measured = assemble(
                found,
                epoch_samples=epoch,
                memory=around.memory_use(shm_predicted_bytes=predicted, shm_free_bytes=free),
                phases=self._phases(prepared),
                seed=self._workload.seed,
                archive=archive_use(prepared),
                cache=cache_use(prepared),
                page_cache=page_cache,
                page_cache_resident_share=resident,
                bytes_read=None if read_after is None or read_before is None else max(0, read_after - read_before),
                throttled_s=throttled_s,
                load_average=load_average,
            )
            return Report(measurement=measured)

    def _build(self) -> _Source:
        with self._in_phase("build"):
            payload = self._payload()
            dataset = build_dataset(self._workload.dataset, payload, progress=self._progress)
            facts = dataset_facts(dataset)
            if self._workload.dataset.type_name is not None:
                # only the tuner knows what the script's module is called: here `__main__` is the server
                facts = facts.replace(type_name=self._workload.dataset.type_name)
            machine = self._machine()
            self._report(Report(machine=machine, dataset=facts))
        with self._in_phase("predict"):
            device = resolve_device(self._workload.device)
        return _Source(dataset=dataset, facts=facts, machine=machine, payload=payload, device=device)

    def _machine(self) -> MachineFacts:
        """Describe this machine; one that is emulated carries a name of its own."""
        machine = machine_facts(cpu_cap=self._order.cpu_cap)
        node = self._order.emulated_node
        return machine if node is None else machine.replace(host=f"{machine.host}/{node}", environment="emulated")

    def _payload(self) -> dict[str, Any]:
        """Read the objects that the tuner wrote to its private file for this trial."""
        if self._request.payload_path is None:
            return {}
        payload: dict[str, Any] = pickle.loads(Path(self._request.payload_path).read_bytes())  # noqa: S301 - our own
        return payload

    def _prepare(self, dataset: Dataset[Any], source: _Source) -> Prepared:
        """Apply the configuration: the archive first and by itself, then the cache around it."""
        apply = partial(
            prepare,
            dataset,
            archive_root=Path(self._request.archive_root),
            cache_root=Path(self._request.cache_root),
            limit_bytes=cache_limit_bytes(self._request, source.machine, source.device),
            device=source.device,
            build_workers=source.machine.cpu_count,
            archive_limit_bytes=self._request.archive_limit_bytes,
            kept_archives=self._request.kept_archives,
            progress=self._progress,
        )
        if self._config.archive != "files":
            with self._in_phase("archive"):
                plain = self._config.replace(cache="none", cache_fraction=None)
                prepared = apply(plain)
        if self._config.archive == "files" or self._config.cache != "none":
            with self._in_phase("cache" if self._config.cache != "none" else "build"):
                archive = None if self._config.archive == "files" else prepared.archive
                prepared = apply(self._config)
                if archive is not None:  # the one that was built knows what building took
                    prepared = replace(prepared, archive=archive)
        if prepared.cache is not None:
            with self._in_phase("cache"):
                started_s = perf_counter()
                prepared.cache.fill(self._progress)
                prepared.cache.reset_counters()
                self._fill_s = perf_counter() - started_s
        return prepared

    def _surround(self, source: _Source, *, cold_paths: Sequence[str]) -> Around:
        self._around = Around(
            device=source.device,
            limit_bytes=limit_in_bytes(self._workload.memory_limit, source.machine, source.device),
            host_limit_bytes=source.machine.memory_bytes,
            cold_paths=cold_paths,
            own_pids=(self._order.tuner_pid, os.getppid()),
            own_quota=self._request.cpus is not None,
            # emulated steps sleep, so emulated machines take CPU time from each other only beside the step
            watch_others=self._order.emulated_node is None or self._workload.consumer.kind != "emulated",
            on_edge=self._note_workers,
        )
        return self._around

    def _pull(self, source: _Source, prepared: Prepared, around: Around, *, epoch: int | None) -> Throughput:
        """Make loader and consumer, and measure."""
        workers, drop_last = self._config.num_workers, self._workload.drop_last
        self._stall_s = min(_STALL_S, self._request.timeout_s) if workers else 0.0
        given = {"collate_fn": source.payload["collate_fn"]} if "collate_fn" in source.payload else {}
        loader = make_loader(
            prepared.dataset,
            prepared.arguments,
            shuffle=self._workload.shuffle,
            seed=self._workload.seed,
            drop_last=drop_last,
            timeout=self._stall_s,
            loader_class=self._loader_class(),
            **given,
        )
        if workers and isinstance(loader, DataLoader):
            loader.collate_fn = CollatesInWorkers(loader.collate_fn)
        consume = self._consumer(source, self._config.batch_size)
        prefilled = workers * (self._config.prefetch_factor or DEFAULT_PREFETCH_FACTOR)
        around.begin()
        watched = _Watched(loader, self._loader_workers)
        if self._request.phase == "verify":
            stress(
                prepared.dataset, watched, consume=consume, around=around, batch_size=self._config.batch_size,
                collate=source.payload.get("collate_fn"), seed=self._workload.seed,
            )  # fmt: skip
        return measure_throughput(
            watched,
            consume=consume,
            count=sample_counter(prepared.dataset, self._config.batch_size, drop_last=drop_last),
            plan=Plan(
                time_cap_s=self._request.time_cap_s,
                warm_batches=max(1, prefilled),
                epoch_samples=epoch,
                incumbent_samples_per_s=self._request.incumbent_samples_per_s,
                persistent_workers=workers > 0 and bool(getattr(loader, "persistent_workers", False)),
                whole_epochs_grouped=not around.cold,
            ),
            around=around,
        )

    def _loader_class(self) -> Callable[..., Any]:
        path = self._workload.loader_class
        return DataLoader if path is None else load_callable(path)

    def _consumer(self, source: _Source, batch_size: int) -> BatchTaker:
        return make_consumer(
            self._workload.consumer,
            device=source.device,
            batch_size=batch_size,
            load=load_object,
            payload=source.payload,
            device_transform=device_transform_of(source.dataset),
        )

    def _check_sharding(self, dataset: Dataset[Any], facts: DatasetFacts, found: Throughput) -> None:
        """Look whether workers repeat samples, unless a whole epoch of known length shows that they do not."""
        workers = self._config.num_workers
        if not isinstance(dataset, IterableDataset) or self._config.order == "streaming" or workers < 2:
            return
        if found.exhausted and facts.length is not None and found.delivered_samples <= facts.length:
            return
        check_not_repeated(found.delivered_samples, num_workers=workers, shards_itself=shards_itself(dataset))

    def _phases(self, prepared: Prepared) -> Phases:
        archive_s = prepared.archive.build_s if prepared.archive else 0.0
        spent = sum(self._seconds.get(phase, 0.0) for phase in ("build", "predict", "archive", "cache"))
        return Phases(
            build_s=max(0.0, spent - archive_s - self._fill_s),
            archive_build_s=archive_s,
            cache_fill_s=self._fill_s,
            page_cache_s=self._seconds.get("warm", 0.0),
        )

    def _note_workers(self) -> None:
        """Tell the tuner of the loader's processes, between windows and only when they changed."""
        pids = tuple(sorted(worker.pid for worker in self._loader_workers if worker.pid is not None))
        if pids != self._told_pids:
            self._told_pids = pids
            self._report(Report(worker_pids=pids))

    def _progress(self, done: int, total: int) -> None:
        """Report how far a preparation is, not more often than people can read."""
        if done < total and perf_counter() - self._told_s < _TELL_EVERY_S:
            return
        self._told_s = perf_counter()
        self._report(Report(phase=self._phase, done=done, total=total))

    @contextmanager
    def _in_phase(self, phase: str) -> Iterator[None]:
        """Report a phase and add up its seconds; what fails in it is known to have failed there."""
        self._phase = phase
        self._report(Report(phase=phase))
        started_s = perf_counter()
        yield
        self._seconds[phase] = self._seconds.get(phase, 0.0) + perf_counter() - started_s


class _Watched:
    """A loader whose processes are known as soon as they run.

    Args:
        loader: The loader.
        workers: Filled with its processes at each `iter()`; those of before stay, ended or not.
    """

    def __init__(self, loader: Iterable[Any], workers: list[BaseProcess]) -> None:
        self._loader = loader
        self._workers = workers

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        self._workers[:] = multiprocessing.active_children()
        return batches
