"""Trials that are killed, hang, or read what cannot be read."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from trial_requests import SUPPORT, shared_memory_files, trial_processes, trial_request

from autotune.spec import DatasetSource
from autotune.trial import LocalRunner

pytestmark = [pytest.mark.fault, pytest.mark.skipif(sys.platform != "linux", reason="Linux is the reference")]


@pytest.fixture(scope="module")
def shared_runner():
    with LocalRunner() as running:
        yield running


@pytest.fixture
def runner(shared_runner):
    """Give the runner of all tests, and see that each leaves nothing behind."""
    yield shared_runner
    assert trial_processes() == []
    assert shared_memory_files() == []


def start(runner, request):
    """Run a trial beside the test; give what it comes to as a list that fills."""
    found = []
    thread = threading.Thread(target=lambda: found.append(runner.run(request)))
    thread.start()
    return thread, found


def wait_for(what, seconds=60):
    """Wait until something is there, and give it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(psutil.NoSuchProcess):  # processes end while they are looked at
            found = what()
            if found:
                return found
        time.sleep(0.02)
    raise AssertionError("it never came")


def loader_workers():
    """Give the processes of the loader, once all of them run."""
    found = [process for process in trial_processes() if process.ppid() != servers()[0].pid]
    return found if len(found) == 2 else None


def servers():
    return [child for child in psutil.Process().children() if "autotune.trial.server" in " ".join(child.cmdline())]


def leaders():
    """Give the trial's own process."""
    return servers()[0].children() if servers() else []


@pytest.mark.fault(1)
def test_a_killed_loader_worker_is_a_crash_and_the_next_trial_is_fine(tmp_path, runner):
    settings = {"number": int(signal.SIGKILL)}
    record = runner.run(trial_request(tmp_path, "SignalsWorker", settings, config={"num_workers": 2}))
    assert record.failure.kind == "crashed"
    assert record.failure.phase == "measure"
    assert "SIGKILL" in record.failure.message
    assert record.failure.retryable
    assert record.attempts == 2
    assert record.wall_s < 20  # two attempts, each noticed in under 10 s
    assert runner.run(trial_request(tmp_path)).failure is None


@pytest.mark.fault(1)
def test_a_worker_that_is_killed_once_is_measured_by_the_retry(tmp_path, runner):
    settings = {"number": int(signal.SIGKILL), "once": str(tmp_path / "killed")}
    record = runner.run(trial_request(tmp_path, "SignalsWorker", settings, config={"num_workers": 2}))
    assert record.failure is None
    assert record.attempts == 2


@pytest.mark.fault(1)
def test_a_worker_killed_from_outside_in_mid_run_is_a_crash(tmp_path, runner):
    request = trial_request(tmp_path, "Endless", config={"num_workers": 2}, time_cap_s=50.0, timeout_s=80.0)
    thread, found = start(runner, request)
    for _ in range(2):  # the retry as well
        workers = wait_for(loader_workers)
        workers[0].kill()
        wait_for(lambda gone=workers[0]: not gone.is_running())
    thread.join(60)
    assert found[0].failure.kind == "crashed"
    assert found[0].attempts == 2


@pytest.mark.fault(16)
def test_a_bus_error_of_a_worker_means_shared_memory(tmp_path, runner):
    settings = {"number": int(signal.SIGBUS)}
    failure = runner.run(trial_request(tmp_path, "SignalsWorker", settings, config={"num_workers": 1})).failure
    assert (failure.kind, failure.infeasible, failure.retryable) == ("shared_memory", True, False), failure.message


@pytest.mark.fault(2)
def test_a_stopped_worker_times_out_and_nothing_survives(tmp_path, runner):
    settings = {"number": int(signal.SIGSTOP)}
    request = trial_request(tmp_path, "SignalsWorker", settings, config={"num_workers": 2}, timeout_s=4.0)
    record = runner.run(request)
    assert record.failure.kind == "timed_out"
    assert record.failure.phase == "measure"
    assert record.attempts == 1
    assert trial_processes() == []
    assert runner.run(trial_request(tmp_path)).failure is None


@pytest.mark.fault(3)
def test_a_killed_trial_is_run_again_once_and_recorded(tmp_path, runner):
    record = runner.run(trial_request(tmp_path, "KillsTrial"))
    assert record.failure.kind == "crashed"
    assert record.failure.phase == "build"
    assert "SIGKILL" in record.failure.message
    assert record.attempts == 2
    assert runner.run(trial_request(tmp_path)).failure is None


@pytest.mark.fault(3)
def test_a_trial_that_is_killed_once_is_measured_by_the_retry(tmp_path, runner):
    record = runner.run(trial_request(tmp_path, "KillsTrial", {"once": str(tmp_path / "killed")}))
    assert record.failure is None
    assert record.attempts == 2


@pytest.mark.fault(3)
def test_a_trial_killed_from_outside_takes_its_workers_along(tmp_path, runner):
    request = trial_request(tmp_path, "Endless", config={"num_workers": 2}, time_cap_s=50.0, timeout_s=80.0)
    thread, found = start(runner, request)
    for _ in range(2):
        workers = wait_for(loader_workers)
        leaders()[0].kill()
        wait_for(lambda gone=workers: not any(worker.is_running() for worker in gone))
    thread.join(60)
    assert found[0].failure.kind == "crashed"
    assert found[0].machine is not None


@pytest.mark.fault(3)
def test_a_killed_server_takes_the_trial_along_and_is_started_again(tmp_path, runner):
    request = trial_request(tmp_path, "Endless", config={"num_workers": 2}, time_cap_s=1.0, timeout_s=80.0)
    thread, found = start(runner, request)
    workers = wait_for(loader_workers)
    servers()[0].kill()
    wait_for(lambda: not any(worker.is_running() for worker in workers))
    thread.join(60)
    assert found[0].failure is None
    assert found[0].attempts == 2


@pytest.mark.fault(3)
@pytest.mark.slow
def test_a_server_killed_between_trials_is_started_again(tmp_path, runner):
    assert runner.run(trial_request(tmp_path)).failure is None
    servers()[0].kill()
    record = runner.run(trial_request(tmp_path))
    assert record.failure is None


@pytest.mark.fault(12)
def test_damaged_and_missing_files_are_bad_data_with_their_path(tmp_path, runner):
    good, short, missing = tmp_path / "good", tmp_path / "short", tmp_path / "missing"
    good.write_bytes(bytes(100))
    short.write_bytes(bytes(40))
    for bad in (short, missing):
        for workers in (0, 2):
            arguments = {"paths": [str(good), str(bad)], "length": 100}
            request = trial_request(tmp_path, "Files", arguments, config={"num_workers": workers}, batch_bytes=800)
            failure = runner.run(request).failure
            assert failure.kind == "bad_data"
            assert str(bad) in failure.message
            assert not failure.retryable


@pytest.mark.fault(12)
def test_a_truncated_raster_is_bad_data_with_its_path(tmp_path, runner):
    pytest.importorskip("rasterio")
    source = DatasetSource(
        factory="autotune.data.datasets.factories:forest_gaps",
        arguments={"root": str(tmp_path / "data"), "count": 4, "size": 64},
    )
    for workers in (0, 2):
        request = trial_request(
            tmp_path, workload={"dataset": source}, config={"num_workers": workers, "batch_size": 2}, batch_bytes=1
        )
        assert runner.run(request).failure is None
    bad = sorted((tmp_path / "data").rglob("heights/*.tif"))[1]
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    for workers in (0, 2):
        request = trial_request(
            tmp_path, workload={"dataset": source}, config={"num_workers": workers, "batch_size": 2}, batch_bytes=1
        )
        failure = runner.run(request).failure
        assert failure.kind == "bad_data"
        assert str(bad) in failure.message


@pytest.mark.fault(30)
def test_an_empty_dataset_and_one_under_a_batch_are_told(tmp_path, runner):
    empty = runner.run(trial_request(tmp_path, "Plain", {"count": 0})).failure
    assert empty.kind == "empty"
    small = trial_request(tmp_path, "Plain", {"count": 5}, workload={"drop_last": True})
    assert runner.run(small).failure.kind == "empty"
    whole = runner.run(trial_request(tmp_path, "Plain", {"count": 5}))
    assert whole.failure is None
    assert whole.measurement.epoch_samples == 5
    stream = runner.run(trial_request(tmp_path, "Stream", {"count": 0})).failure
    assert stream.kind == "empty"


@pytest.mark.fault(17)
def test_few_file_descriptors_are_the_reason_that_is_given(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    request = trial_request(
        tmp_path, "Plain", {"count": 4096}, config={"num_workers": 6, "batch_size": 1, "prefetch_factor": 32}
    )
    with LocalRunner() as runner:
        runner.inspect(request)
        psutil.Process(runner._server.pid).rlimit(psutil.RLIMIT_NOFILE, (40, hard))
        failure = runner.run(request).failure
    assert failure.kind == "file_descriptors"
    assert failure.infeasible
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft


TUNER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    sys.path.insert(0, {support!r})
    from trial_requests import trial_request
    from autotune.trial import LocalRunner
    request = trial_request(
        Path({folder!r}), "Endless", config={{"num_workers": 2}}, time_cap_s=500.0, timeout_s=900.0
    )
    LocalRunner().run(request)
    """
)


@pytest.mark.fault(4)
def test_a_killed_tuner_takes_server_trial_and_workers_along(tmp_path):
    script = tmp_path / "tuner.py"
    script.write_text(TUNER.format(support=SUPPORT, folder=str(tmp_path)))
    folder = tmp_path / "temporary"
    folder.mkdir()
    tuner = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "TMPDIR": str(folder)})
    try:
        below = wait_for(
            lambda: (found := psutil.Process(tuner.pid).children(recursive=True)) and len(found) == 4 and found
        )
        os.kill(below[-1].pid, signal.SIGSTOP)  # a worker that cannot end by itself
    finally:
        tuner.kill()
        tuner.wait()
    _, alive = psutil.wait_procs(below, timeout=30)
    assert alive == []
    assert shared_memory_files() == []
    assert list(folder.iterdir()) == []


@pytest.mark.fault(4)
@pytest.mark.slow
def test_an_interrupted_tuner_leaves_nothing(tmp_path):
    script = tmp_path / "tuner.py"
    script.write_text(TUNER.format(support=SUPPORT, folder=str(tmp_path)))
    folder = tmp_path / "temporary"
    folder.mkdir()
    tuner = subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "TMPDIR": str(folder)}, stderr=subprocess.DEVNULL
    )
    try:
        below = wait_for(
            lambda: (found := psutil.Process(tuner.pid).children(recursive=True)) and len(found) == 4 and found
        )
        tuner.send_signal(signal.SIGINT)
        tuner.wait(60)
    finally:
        tuner.kill()
    _, alive = psutil.wait_procs(below, timeout=30)
    assert alive == []
    assert list(Path(folder).iterdir()) == []
