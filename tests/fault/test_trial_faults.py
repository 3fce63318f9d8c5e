"""Trials that are killed from outside, or once, or read what cannot be read; the plain cases are drills."""

import os
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

from autotune.trial import LocalRunner

pytestmark = [pytest.mark.fault, pytest.mark.skipif(sys.platform != "linux", reason="Linux is the reference")]


@pytest.fixture(scope="module")
def shared_runner():
    with LocalRunner() as running:
        yield running


@pytest.fixture
def runner(shared_runner):
    """Give the runner of all tests, and see that each leaves nothing behind."""
    before = shared_memory_files()
    yield shared_runner
    assert trial_processes() == []
    assert shared_memory_files(before) == []


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
def test_damaged_missing_and_unreadable_files_are_bad_data_with_their_path(tmp_path, runner):
    good, short, missing, unreadable = (tmp_path / name for name in ("good", "short", "missing", "unreadable"))
    good.write_bytes(bytes(100))
    short.write_bytes(bytes(40))
    unreadable.symlink_to("/proc/self/mem")  # whose first page gives an input/output error, to root as well
    for bad in (short, missing, unreadable):
        for workers in (0, 2):
            arguments = {"paths": [str(good), str(bad)], "length": 100}
            request = trial_request(tmp_path, "Files", arguments, config={"num_workers": workers}, batch_bytes=800)
            failure = runner.run(request).failure
            assert failure.kind == "bad_data"
            assert str(bad) in failure.message
            assert not failure.retryable


@pytest.mark.fault(1)
def test_a_trial_that_torch_interrupts_for_a_lost_worker_while_it_fails_still_says_why(tmp_path, runner):
    failure = runner.run(trial_request(tmp_path, "LosesWorkerWhileFailing")).failure
    assert "without a result" not in failure.message
    assert "DataLoader worker (pid 1) is killed" in failure.message


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


TUNER = textwrap.dedent(
    """
    import signal
    import sys
    from pathlib import Path
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs, as CI's, ignore it
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
    before = shared_memory_files()
    tuner = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "TMPDIR": str(folder)})
    try:
        below = wait_for(
            lambda: (found := psutil.Process(tuner.pid).children(recursive=True)) and len(found) == 4 and found
        )
        os.kill(below[-1].pid, signal.SIGSTOP)  # a worker that cannot end by itself
        Path(f"/dev/shm/torch_{below[-1].pid}_1_0").touch()  # and has a batch under way
    finally:
        tuner.kill()
        tuner.wait()
    _, alive = psutil.wait_procs(below, timeout=30)
    assert alive == []
    assert shared_memory_files(before) == []
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
