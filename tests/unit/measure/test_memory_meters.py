"""Meters of device and host memory on this very process and on laid-out `/proc` files."""

import mmap
import os
import sys

import pytest
import torch

from autotune.machine import machine_facts
from autotune.measure.host import HostMeter, shared_memory_free, shared_memory_needed, tree_bytes_read, tree_pss_bytes
from autotune.measure.limits import MeasurementStoppedError, check_shared_memory
from autotune.measure.memory import AnonymousMeter, limit_in_bytes, make_meter
from autotune.spec import MemoryLimit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
MIB = 1024**2


def touch(megabytes):
    held = mmap.mmap(-1, megabytes * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for place in range(0, len(held), mmap.PAGESIZE):
        held[place] = 1
    return held


def test_memory_that_is_held_is_seen_after_a_batch():
    meter = AnonymousMeter(1000 * MIB)
    meter.begin()
    held = touch(40)
    meter.after_batch()
    held.close()
    assert 35 * MIB < meter.peak_bytes < 60 * MIB


def test_memory_that_was_taken_for_a_moment_is_seen_at_the_edge():
    meter = AnonymousMeter(1000 * MIB)
    meter.begin()
    touch(40).close()
    meter.after_batch()
    assert meter.peak_bytes < 20 * MIB
    meter.at_edge()
    assert meter.peak_bytes > 35 * MIB


def test_a_peak_before_the_first_batch_does_not_count():
    touch(80).close()
    meter = AnonymousMeter(1000 * MIB)
    meter.begin()
    meter.at_edge()
    assert meter.peak_bytes < 40 * MIB


def test_mapped_files_do_not_count_as_device_memory(tmp_path):
    path = tmp_path / "big"
    path.write_bytes(bytes(60 * MIB))
    meter = AnonymousMeter(1000 * MIB)
    meter.begin()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[place] for place in range(0, len(mapped), mmap.PAGESIZE)) == 0
        meter.after_batch()
        meter.at_edge()
    assert meter.peak_bytes < 30 * MIB


def test_mapped_files_that_the_kernel_takes_back_are_no_peak(tmp_path):
    def lay_out(anonymous, files, most):
        pages = [MIB // mmap.PAGESIZE * megabytes for megabytes in (anonymous + files, files)]
        (tmp_path / "statm").write_text(f"99999 {pages[0]} {pages[1]} 0 0 0 0\n")
        (tmp_path / "status").write_text(f"VmHWM:\t{most * 1024} kB\nRssFile:\t{files * 1024} kB\nRssShmem:\t0 kB\n")

    lay_out(anonymous=50, files=200, most=250)
    meter = AnonymousMeter(1000 * MIB, proc=tmp_path)
    meter.begin()
    lay_out(anonymous=50, files=120, most=280)  # 30 more for a moment, then 80 of the files were taken back
    meter.at_edge()
    assert meter.peak_bytes == 30 * MIB
    lay_out(anonymous=50, files=120, most=210)
    meter.at_edge()
    assert meter.peak_bytes == 40 * MIB


def test_a_breach_ends_the_run_with_its_excess():
    meter = AnonymousMeter(20 * MIB)
    meter.begin()
    held = touch(40)
    with pytest.raises(MeasurementStoppedError) as caught:
        meter.after_batch()
    held.close()
    failure = caught.value.failure
    assert (failure.kind, failure.infeasible) == ("device_memory", True)
    assert failure.excess == pytest.approx(meter.peak_bytes / (20 * MIB * 0.95) - 1)


def test_memory_that_cannot_be_read_is_infeasible(tmp_path):
    with pytest.raises(MeasurementStoppedError) as caught:
        AnonymousMeter(MIB, proc=tmp_path / "missing").begin()
    assert caught.value.failure.kind == "unmeasurable"


def test_a_share_is_of_the_machines_memory():
    facts = machine_facts(environ={}, accelerator=False)
    assert limit_in_bytes(MemoryLimit(share=0.5), facts, torch.device("cpu")) == int(facts.memory_bytes * 0.5)
    assert limit_in_bytes(MemoryLimit(size_bytes=7), facts, torch.device("cpu")) == 7
    assert make_meter(torch.device("cpu"), MIB).instrument == "rss_anon"


def test_host_memory_is_read_at_most_once_a_second():
    now = [0.0]
    meter = HostMeter(os.getpid(), 1 << 50, clock=lambda: now[0])
    meter.sample()
    first = meter.peak_bytes
    assert first > MIB
    held = touch(64)
    meter.sample()
    assert meter.peak_bytes == first
    now[0] = 1.5
    meter.sample()
    held.close()
    assert meter.peak_bytes > first + 32 * MIB


def test_a_tree_that_uses_too_much_host_memory_ends_the_run():
    with pytest.raises(MeasurementStoppedError) as caught:
        HostMeter(os.getpid(), MIB).sample()
    assert caught.value.failure.kind == "host_memory"


def test_unknown_host_memory_is_none(tmp_path):
    assert tree_pss_bytes(1, proc=tmp_path) is None
    assert tree_bytes_read(1, proc=tmp_path) is None
    assert tree_bytes_read(os.getpid()) >= 0


def test_shared_memory_is_predicted_and_fails_closed():
    assert shared_memory_needed(num_workers=2, prefetch_factor=3, batch_bytes=10) == 80
    assert shared_memory_needed(num_workers=0, prefetch_factor=2, batch_bytes=10) == 0
    check_shared_memory(80, 80)
    with pytest.raises(MeasurementStoppedError) as caught:
        check_shared_memory(120, 80)
    assert (caught.value.failure.kind, caught.value.failure.phase) == ("shared_memory", "predict")
    assert caught.value.failure.excess == pytest.approx(0.5)
    with pytest.raises(MeasurementStoppedError) as caught:
        check_shared_memory(1, None)
    assert caught.value.failure.kind == "unmeasurable"


def test_free_shared_memory_is_unknown_where_there_is_none(tmp_path):
    assert shared_memory_free(tmp_path / "missing") is None
