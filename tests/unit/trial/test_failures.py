"""What exceptions, exit codes and leftovers come to."""

import errno
import faulthandler
import multiprocessing
import os
import signal
import time

import pytest
import torch

from autotune.errors import (
    ArchiveDamagedError,
    ArchiveStaleError,
    CapacityError,
    DatasetError,
    RandomSamplesError,
    SampleError,
    SpecError,
)
from autotune.measure.consumers import StepFailedError
from autotune.measure.limits import stop
from autotune.trial.deaths import died
from autotune.trial.failures import Circumstances, classify
from autotune.trial.leftovers import remove_shared_memory
from autotune.trial.messages import Lines

MEASURING = Circumstances(phase="measure")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.cuda.OutOfMemoryError("x"), "device_memory"),
        (MemoryError(), "host_memory"),
        (SampleError("short", "/a.tif"), "bad_data"),
        (DatasetError("no"), "bad_data"),
        (ArchiveDamagedError("sum"), "bad_data"),
        (ArchiveStaleError("old"), "invalid"),
        (RandomSamplesError("random"), "random_samples"),
        (SpecError("no"), "invalid"),
        (StepFailedError("no"), "invalid"),
        (OSError(errno.EMFILE, "many"), "file_descriptors"),
        (OSError(errno.ENOSPC, "full", "/data/x"), "disk_space"),
        (OSError(errno.ENOSPC, "full", "/dev/shm/torch_1"), "shared_memory"),
        (OSError(errno.ENOENT, "gone", "/a"), "bad_data"),
        (KeyError("a"), "bad_data"),
        (SystemExit(1), "crashed"),
    ],
)
def test_exceptions_are_told_apart_by_type(error, kind):
    assert classify(error, MEASURING).kind == kind


def test_memory_that_a_step_ran_out_of_is_not_the_steps_fault():
    error = StepFailedError("step")
    error.__cause__ = torch.cuda.OutOfMemoryError("x")
    assert classify(error, MEASURING).kind == "device_memory"


def test_a_cause_that_torch_hides_counts():
    error = RuntimeError("communication with the workers is no longer possible")
    error.__context__, error.__suppress_context__ = OSError(errno.EMFILE, "many"), True
    assert classify(error, MEASURING).kind == "file_descriptors"


def test_what_does_not_fit_is_disk_for_an_archive_and_memory_for_a_cache():
    error = CapacityError("too big", needed_bytes=300, available_bytes=200)
    assert classify(error, Circumstances(phase="archive")).kind == "disk_space"
    failure = classify(error, Circumstances(phase="cache"))
    assert (failure.kind, failure.excess) == ("host_memory", 0.5)


def test_a_stopped_measurement_keeps_its_failure():
    error = stop("shared_memory", "predict", "small", excess=2.0)
    assert classify(error, MEASURING) is error.failure


def test_the_path_of_a_sample_is_in_the_message():
    assert "/a.tif" in classify(SampleError("short", "/a.tif"), MEASURING).message


def test_the_last_line_of_a_workers_traceback_is_the_message():
    text = "Caught SampleError in DataLoader worker process 0.\nOriginal Traceback:\n  x\nSampleError: /b.tif: short\n"
    assert classify(SampleError(text), MEASURING).message == "SampleError: /b.tif: short"


def test_silence_as_long_as_the_loader_waits_is_a_time_out():
    at = Circumstances(phase="measure", silent_s=61, stall_s=60)
    assert classify(RuntimeError("timed out"), at).kind == "timed_out"
    at = Circumstances(phase="measure", silent_s=59, stall_s=60)
    assert classify(RuntimeError("something"), at).kind == "bad_data"


def wait_to_be_killed(ready):
    faulthandler.disable()
    ready.set()
    time.sleep(100)


@pytest.mark.parametrize(
    ("number", "kills", "kind"),
    [(signal.SIGKILL, 0, "crashed"), (signal.SIGKILL, 1, "host_memory"), (signal.SIGBUS, 0, "shared_memory")],
)
def test_a_worker_that_ended_is_found_by_its_exit_status(number, kills, kind):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=wait_to_be_killed, args=(ready,))
    worker.start()
    assert ready.wait(60)
    os.kill(worker.pid, number)
    worker.join()
    at = Circumstances(phase="measure", workers=[worker], oom_kills=kills)
    failure = classify(RuntimeError("a worker is gone"), at)
    assert failure.kind == kind
    assert failure.retryable == (kind == "crashed")
    assert str(worker.pid) in failure.message


def end_by_a_bus_error_in_a_moment():
    faulthandler.disable()
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGBUS)


def test_a_worker_whose_socket_is_closed_before_it_is_dead_is_waited_for():
    worker = multiprocessing.get_context("fork").Process(target=end_by_a_bus_error_in_a_moment)
    worker.start()
    failure = classify(EOFError(), Circumstances(phase="measure", workers=[worker]))
    worker.join()
    assert failure.kind == "shared_memory"


@pytest.mark.parametrize(
    ("code", "kills", "kind"),
    [
        (-signal.SIGKILL, 0, "crashed"),
        (-signal.SIGKILL, 2, "host_memory"),
        (-signal.SIGBUS, 0, "shared_memory"),
        (-signal.SIGSEGV, 0, "crashed"),
        (3, 0, "crashed"),
        (None, 0, "crashed"),
    ],
)
def test_a_process_without_a_result_is_judged_by_its_exit(code, kills, kind):
    failure = died(code, phase="build", oom_kills=kills, log="last words")
    assert failure.kind == kind
    assert failure.retryable == (kind == "crashed")
    assert failure.phase == "build"
    assert "last words" in failure.message


def test_only_shared_memory_of_ended_processes_is_removed(tmp_path):
    for name in ("torch_11_a_0", "torch_12_b_0", "other_11", "torch_x"):
        (tmp_path / name).touch()
    assert remove_shared_memory([11], folder=tmp_path) == ["torch_11_a_0"]
    assert {path.name for path in tmp_path.iterdir()} == {"torch_12_b_0", "other_11", "torch_x"}
    assert remove_shared_memory([11], folder=tmp_path / "missing") == []


def test_lines_are_put_together_from_any_pieces():
    text = b'{"a":1}\n{"b":2}\n{"c"'
    for size in range(1, len(text)):
        lines = Lines()
        found = [line for start in range(0, len(text), size) for line in lines.feed(text[start : start + size])]
        assert found == [b'{"a":1}', b'{"b":2}']
