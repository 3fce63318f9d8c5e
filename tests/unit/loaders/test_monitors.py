"""Monitors of memory and loading speed: seed 4's figures, told apart from start-up, read off the hot path."""

import gc
import multiprocessing
import pickle
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset, default_collate

from autotune.cgroups import Cgroups
from autotune.errors import SpecError
from autotune.loaders import monitors, sampling
from autotune.loaders.collating import CustomCollateFn
from autotune.loaders.monitors import DataLoaderPerformanceMonitor, MemoryMonitor
from autotune.loaders.sampling import busy_percent
from autotune.units import GIB, MIB

SEED_KEYS = {"total_time", "avg_batch_time", "batches_per_second", "avg_memory_usage", "avg_cpu_usage"}


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    gc.collect()
    deadline_s = time.monotonic() + 5
    while any(thread.name.startswith("autotune ") for thread in threading.enumerate()):
        assert time.monotonic() < deadline_s, threading.enumerate()
        time.sleep(0.01)


@pytest.fixture
def limited(tmp_path):
    """Control groups (version 2) that allow 1 GiB, of which 768 MiB are used and 256 MiB of that can be dropped."""
    proc, group = tmp_path / "proc", tmp_path / "cgroup" / "job"
    proc.mkdir()
    group.mkdir(parents=True)
    (proc / "cgroup").write_text("0::/job\n")
    (proc / "mountinfo").write_text(f"30 20 0:26 / {tmp_path / 'cgroup'} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n")
    (group / "memory.max").write_text(f"{GIB}\n")
    (group / "memory.current").write_text(f"{768 * MIB}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {256 * MIB}\n")
    return Cgroups(proc)


@pytest.fixture
def unlimited(tmp_path):
    return Cgroups(tmp_path)


def wait_for(condition, within_s=10):
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.005)


class TestMemoryMonitor:
    def test_stats_have_the_seed_s_keys_and_are_those_of_the_machine(self, unlimited):
        stats = MemoryMonitor(cgroups=unlimited).get_memory_stats()
        assert stats.keys() == {"used_gb", "available_gb", "percent"}
        total_gb = psutil.virtual_memory().total / GIB
        assert 0 < stats["used_gb"] < total_gb
        assert 0 < stats["available_gb"] < total_gb
        assert 0 < stats["percent"] < 100

    def test_the_limit_of_a_control_group_is_the_whole(self, limited):
        stats = MemoryMonitor(cgroups=limited).get_memory_stats()
        assert stats == {"used_gb": 0.5, "available_gb": 0.5, "percent": 50.0}

    def test_memory_is_there_up_to_what_the_control_group_leaves(self, limited):
        monitor = MemoryMonitor(cgroups=limited)
        assert monitor.check_memory_constraint(512 * MIB)
        assert not monitor.check_memory_constraint(512 * MIB + 1)

    def test_update_reads_only_while_monitoring_as_in_the_seed(self):
        monitor = MemoryMonitor()
        monitor.update()
        assert monitor.memory_usage == []
        monitor.start_monitoring()
        monitor.update()
        monitor.stop()
        monitor.update()
        assert len(monitor.memory_usage) == 3  # at the start, when asked, at the end
        assert all(reading.keys() >= {"timestamp", "used", "available", "percent"} for reading in monitor.memory_usage)

    def test_readings_come_from_a_thread_of_its_own(self):
        with MemoryMonitor(every_s=0.005) as monitor:
            wait_for(lambda: len(monitor.memory_usage) >= 4)
        assert not monitor.monitoring
        stamps = [reading["timestamp"] for reading in monitor.memory_usage]
        assert stamps == sorted(stamps)
        assert monitor.peak_percent == max(reading["percent"] for reading in monitor.memory_usage)

    def test_starting_again_forgets_the_earlier_readings(self):
        monitor = MemoryMonitor(every_s=60)
        monitor.start_monitoring()
        monitor.start_monitoring()
        assert len(monitor.memory_usage) == 1
        monitor.stop()
        monitor.stop()

    def test_a_monitor_that_nobody_holds_ends_its_thread(self):
        monitor = MemoryMonitor(every_s=0.005)
        monitor.start_monitoring()
        del monitor  # the fixture sees that the thread ends

    def test_it_travels_to_workers_without_its_thread(self):
        with MemoryMonitor(every_s=0.01) as monitor:
            copy = pickle.loads(pickle.dumps(monitor))
            assert not copy.monitoring
            assert copy.memory_usage[0].keys() == monitor.memory_usage[0].keys()
            assert copy.get_memory_stats()["percent"] > 0

    def test_a_forked_process_can_stop_and_start_it(self):
        with MemoryMonitor(every_s=0.001) as monitor:
            context = multiprocessing.get_context("fork")
            results = context.SimpleQueue()
            child = context.Process(target=_restart, args=(monitor, results))
            child.start()
            child.join(30)
            assert child.exitcode == 0
            assert results.get() >= 2

    def test_readings_are_thinned_before_they_fill_the_memory(self, monkeypatch):
        monkeypatch.setattr(sampling, "READINGS_MAX", 10)
        with MemoryMonitor(every_s=60) as monitor:
            for _ in range(100):
                monitor.update()
        assert 5 <= len(monitor.memory_usage) <= 11

    @pytest.mark.parametrize("every_s", [0, -1, float("nan")])
    def test_a_time_that_is_none_is_refused(self, every_s):
        with pytest.raises(SpecError, match="above 0 s"):
            MemoryMonitor(every_s=every_s)

    def test_no_context_is_created_on_a_device(self):
        code = (
            "import time, torch\n"
            "from autotune.loaders.monitors import DataLoaderPerformanceMonitor, MemoryMonitor\n"
            "with MemoryMonitor(every_s=0.001) as monitor:\n"
            "    list(DataLoaderPerformanceMonitor(every_s=0.001).watch([torch.zeros(2)]))\n"
            "    monitor.get_memory_stats()\n"
            "    while len(monitor.memory_usage) < 4: time.sleep(0.001)\n"
            "print(torch.cuda.is_initialized(), 'device_used' in monitor.memory_usage[-1])\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.split() == ["False", "False"]

    def test_the_device_is_that_of_the_thread_that_starts_monitoring(self, devices):
        devices.reserved = {0: MIB, 1: MIB}
        devices.set_device(1)
        with MemoryMonitor(every_s=0.001) as memory:
            wait_for(lambda: len(memory.memory_usage) >= 4)
        speed = DataLoaderPerformanceMonitor(every_s=0.001)
        for _ in speed.watch([[1]]):
            wait_for(lambda: len(speed.device_memory_usage) >= 4)
        assert devices.current_device() == 1
        assert {reading["device_total"] for reading in memory.memory_usage} == {2 * GIB}
        assert devices.asked == {1}

    def test_a_device_that_holds_nothing_of_this_process_is_not_asked(self, devices):
        with MemoryMonitor(every_s=60) as monitor:
            monitor.update()
            assert devices.asked == set(), "CUDA has started, and no device is in use"
            devices.reserved = {1: MIB}
            monitor.update()
        assert devices.asked == {1}
        assert "device_used" not in monitor.memory_usage[0]
        assert monitor.memory_usage[-1]["device_used"] == GIB

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_memory_of_a_device_in_use_is_read(self):
        kept = torch.zeros(64 * MIB, dtype=torch.uint8, device="cuda")
        stats = MemoryMonitor().get_memory_stats()
        assert 0 < kept.nbytes / GIB <= stats["device_used_gb"] < stats["device_total_gb"]


class Devices:
    """Two devices as torch tells of them: each thread has its own current one, which is 0 at first."""

    def __init__(self):
        self.reserved = {}
        self.asked = set()
        self._here = threading.local()

    def is_initialized(self):
        return True

    def device_count(self):
        return 2

    def set_device(self, index):
        self._here.index = index

    def current_device(self):
        return getattr(self._here, "index", 0)

    def max_memory_reserved(self, index):
        return self.reserved.get(index, 0)

    def mem_get_info(self, index=None):
        index = self.current_device() if index is None else index
        self.asked.add(index)
        return index * GIB, (index + 1) * GIB


@pytest.fixture
def devices(monkeypatch):
    found = Devices()
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=found))
    return found


def _restart(monitor, results):
    monitor.stop()
    monitor.start_monitoring()
    monitor.stop()
    results.put(len(monitor.memory_usage))


class TestDataLoaderPerformanceMonitor:
    def test_it_gives_nothing_before_the_first_batch(self):
        monitor = DataLoaderPerformanceMonitor()
        assert monitor.get_stats() == {}
        monitor.start_iteration()
        assert monitor.get_stats() == {}
        monitor.end_iteration()

    def test_the_seed_s_own_loop_gives_the_seed_s_keys(self):
        loader = DataLoader(TensorDataset(torch.zeros(20, 3), torch.zeros(20)), batch_size=8)
        monitor = DataLoaderPerformanceMonitor()
        monitor.start_iteration()
        for batch in loader:
            time.sleep(0.04)  # long enough for the system's clock of CPU time
            monitor.update_batch(batch)
        stats = monitor.get_stats()
        monitor.end_iteration()
        assert stats.keys() >= SEED_KEYS
        assert (stats["batches"], stats["samples"]) == (3, 20)
        assert stats["avg_batch_time"] == pytest.approx(np.mean(np.diff(monitor.batch_times)))
        assert stats["batches_per_second"] == pytest.approx(3 / stats["total_time"])
        assert "wait_share" not in stats, "nobody knows how long was waited"

    def test_a_share_of_the_cpu_that_is_unknown_is_left_out_and_not_0(self, monkeypatch):
        monkeypatch.setattr(sampling, "_CPU_TIME_MIN_S", float("inf"))
        monitor = DataLoaderPerformanceMonitor()
        list(monitor.watch([[1], [2]]))
        stats = monitor.get_stats()
        assert stats.keys() >= SEED_KEYS - {"avg_cpu_usage"}
        assert "avg_cpu_usage" not in stats

    def test_a_batch_before_an_iteration_is_refused(self):
        with pytest.raises(SpecError, match="start_iteration"):
            DataLoaderPerformanceMonitor().update_batch([1])

    def test_the_first_batch_is_start_up_and_not_steady_state(self):
        def batches():
            time.sleep(0.3)
            yield from torch.zeros(5, 4)

        monitor = DataLoaderPerformanceMonitor()
        list(monitor.watch(batches()))
        stats = monitor.get_stats()
        assert stats["startup_time"] >= 0.3
        assert stats["samples_per_second"] <= 20 / 0.3
        assert stats["steady_samples_per_second"] > stats["samples_per_second"]
        assert stats["steady_batches_per_second"] == pytest.approx(1 / stats["avg_batch_time"])
        assert stats["avg_wait_time"] < 0.3

    def test_waiting_and_processing_are_told_apart(self):
        def batches(wait_s):
            for _ in range(6):
                time.sleep(wait_s)
                yield [0] * 4

        starved, busy = DataLoaderPerformanceMonitor(), DataLoaderPerformanceMonitor()
        for _ in starved.watch(batches(0.02)):
            pass
        for _ in busy.watch(batches(0.0)):
            time.sleep(0.02)
        assert starved.get_stats()["wait_share"] > 0.8
        assert starved.get_stats()["avg_wait_time"] >= 0.02
        assert busy.get_stats()["wait_share"] < 0.2
        assert busy.get_stats()["avg_processing_time"] >= 0.02
        assert len(busy.wait_times) == 6

    def test_each_pass_is_an_iteration_and_ends_with_its_last_batch(self):
        monitor = DataLoaderPerformanceMonitor()
        watched = monitor.watch([[1, 2], [3, 4], [5]])
        assert [list(watched), list(watched)] == [[[1, 2], [3, 4], [5]]] * 2
        first = monitor.get_stats()
        time.sleep(0.02)
        assert (first["batches"], first["samples"]) == (3, 5)
        assert monitor.get_stats()["total_time"] == first["total_time"]

    def test_two_passes_at_once_keep_apart_and_the_later_one_is_told(self):
        monitor = DataLoaderPerformanceMonitor(every_s=60)
        watched = monitor.watch([[1, 2], [3, 4], [5]])
        assert [first + second for first, second in zip(watched, watched, strict=True)] == [
            [1, 2] * 2,
            [3, 4] * 2,
            [5] * 2,
        ]
        stats = monitor.get_stats()
        assert (stats["batches"], stats["samples"], len(monitor.wait_times)) == (3, 5, 3)

    def test_an_older_pass_that_ends_leaves_the_newer_one_running(self):
        monitor = DataLoaderPerformanceMonitor(every_s=60)
        watched = monitor.watch([[1], [2], [3]])
        older, newer = iter(watched), iter(watched)
        next(older)
        next(newer)
        next(older)
        older.close()
        assert monitor.get_stats()["batches"] == 1
        total_s = monitor.get_stats()["total_time"]
        time.sleep(0.01)
        assert monitor.get_stats()["total_time"] > total_s, "it has not ended"
        assert monitor._sampler is not None
        assert list(newer) == [[2], [3]]
        assert monitor.get_stats()["batches"] == 3

    def test_lists_are_thinned_together_and_the_time_between_readings_doubles_once(self, monkeypatch):
        monkeypatch.setattr(sampling, "READINGS_MAX", 10)
        monkeypatch.setattr(monitors, "busy_percent", lambda _before, _after: 50.0)  # every reading has one
        monitor = DataLoaderPerformanceMonitor(every_s=60)
        monitor.start_iteration()
        while len(monitor.memory_usage) < 10:
            monitor.update()
        sampler = monitor._sampler
        assert sampler.every_s == 60
        monitor.update()
        assert (len(monitor.memory_usage), len(monitor.cpu_usage)) == (5, 5)
        assert sampler.every_s == 120
        for _ in range(5):
            monitor.update()
        assert len(monitor.memory_usage) == 10
        assert sampler.every_s == 120
        monitor.end_iteration()

    def test_a_loop_that_is_left_early_ends_the_iteration(self):
        monitor = DataLoaderPerformanceMonitor(every_s=0.005)
        for batch in monitor.watch(iter([[1], [2], [3]])):
            if batch == [2]:
                break
        gc.collect()
        assert monitor.get_stats()["batches"] == 2

    def test_an_error_of_the_iterable_reaches_the_caller(self):
        def batches():
            yield [1]
            raise ValueError("row 7")

        monitor = DataLoaderPerformanceMonitor()
        with pytest.raises(ValueError, match="row 7"):
            list(monitor.watch(batches()))
        assert monitor.get_stats()["batches"] == 1

    def test_what_is_watched_keeps_its_length_and_attributes(self):
        loader = DataLoader(TensorDataset(torch.arange(10)), batch_size=4)
        watched = DataLoaderPerformanceMonitor().watch(loader)
        assert len(watched) == 3
        assert watched.batch_size == 4
        assert watched.dataset is loader.dataset
        with pytest.raises(AttributeError):
            _ = watched.nothing
        with pytest.raises(TypeError):
            len(DataLoaderPerformanceMonitor().watch(iter([])))

    @pytest.mark.parametrize(
        ("batches", "samples"),
        [
            ([torch.zeros(4, 3), torch.zeros(2, 3)], 6),
            ([{"image": torch.zeros(4, 3), "names": ["a"] * 4}], 4),
            ([(["a", "b"], np.zeros((2, 5)))], 2),
            ([["a", "b", "c"]], 3),
            ([()], 0),
        ],
    )
    def test_samples_are_counted_by_the_first_array(self, batches, samples):
        monitor = DataLoaderPerformanceMonitor()
        list(monitor.watch(batches))
        assert monitor.get_stats()["samples"] == samples

    def test_a_list_of_samples_is_counted_where_the_loader_tells_its_batch_size(self):
        loader = DataLoader(TensorDataset(torch.zeros(10, 7)), batch_size=4, collate_fn=list)
        monitor = DataLoaderPerformanceMonitor()
        list(monitor.watch(loader))
        assert monitor.get_stats()["samples"] == 10

    @pytest.mark.parametrize(
        ("count", "batch_size", "collate"),
        [
            (5, 2, default_collate),
            (1, 2, default_collate),
            (8, 3, CustomCollateFn.padded_collate),
            (2, 3, CustomCollateFn.padded_collate),
            (37, 16, CustomCollateFn.variable_length_collate),
            (5, 4, CustomCollateFn.variable_length_collate),
            (9, 4, list),
        ],
    )
    def test_the_last_batch_counts_for_what_is_in_it(self, count, batch_size, collate):
        lengths = [7] if collate is default_collate else [7, 5, 9]
        samples = [(torch.zeros(lengths[number % len(lengths)]), number) for number in range(count)]
        monitor = DataLoaderPerformanceMonitor()
        watched = monitor.watch(DataLoader(samples, batch_size=batch_size, collate_fn=collate))
        for _ in range(2):
            list(watched)
            assert monitor.get_stats()["samples"] == count

    def test_a_count_of_the_caller_wins(self):
        monitor = DataLoaderPerformanceMonitor(count=lambda batch: batch["n"])
        list(monitor.watch([{"n": 3}, {"n": 4}]))
        assert monitor.get_stats()["samples"] == 7

    def test_no_rate_of_samples_is_made_up_where_they_cannot_be_counted(self):
        monitor = DataLoaderPerformanceMonitor()
        list(monitor.watch([object(), object()]))
        stats = monitor.get_stats()
        assert stats["batches"] == 2
        assert not {"samples", "samples_per_second", "steady_samples_per_second"} & stats.keys()

    def test_one_batch_has_no_steady_rate(self):
        monitor = DataLoaderPerformanceMonitor()
        list(monitor.watch([[1, 2]]))
        stats = monitor.get_stats()
        assert stats["avg_batch_time"] == 0.0
        assert not {"steady_batches_per_second", "steady_samples_per_second", "wait_share"} & stats.keys()

    def test_cpu_and_memory_are_read_in_the_background(self, limited):
        monitor = DataLoaderPerformanceMonitor(every_s=0.005, cgroups=limited)
        for _ in monitor.watch([[0]]):
            wait_for(lambda: len(monitor.memory_usage) >= 4)
            wait_for(lambda: monitor.cpu_usage)
        stats = monitor.get_stats()
        assert stats["avg_memory_usage"] == stats["peak_memory_usage"] == 50.0
        assert all(0 <= usage <= 100 for usage in monitor.cpu_usage)
        assert 0 <= stats["avg_cpu_usage"] <= 100

    def test_a_real_loader_with_workers_gives_every_sample(self):
        data = TensorDataset(torch.arange(40))
        monitor = DataLoaderPerformanceMonitor()
        watched = monitor.watch(DataLoader(data, batch_size=6, num_workers=2))
        assert torch.cat([batch for (batch,) in watched]).tolist() == list(range(40))
        stats = monitor.get_stats()
        assert (stats["batches"], stats["samples"]) == (7, 40)
        assert stats["wait_share"] <= 1


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=2, max_size=2).map(
        lambda pairs: [(round(user, 2), round(idle, 2)) for user, idle in pairs]
    )
)
def test_busy_share_is_a_share_or_unknown(pairs):
    times = type("Times", (tuple,), {"idle": property(lambda self: self[1])})
    (user, idle), (more_user, more_idle) = pairs
    before, after = times((user, idle)), times((user + more_user, idle + more_idle))
    busy = busy_percent(before, after)
    if more_user + more_idle < 0.04:
        assert busy is None
    elif busy is not None:
        assert busy == pytest.approx(100 * more_user / (more_user + more_idle), abs=1e-6)
