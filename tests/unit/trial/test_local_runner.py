"""Trials in real processes."""

import os
import subprocess
import sys
import textwrap

import cloudpickle
import psutil
import pytest
import torch
from torch.utils.data import TensorDataset
from trial_requests import SUPPORT, object_request, shared_memory_files, trial_processes, trial_request

from autotune.spec import Consumer, Failure, MemoryLimit
from autotune.trial import LocalRunner


@pytest.fixture(scope="module")
def runner():
    with LocalRunner() as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path, monkeypatch):
    """Every trial leaves no process, no shared memory and no temporary file."""
    before = shared_memory_files()
    yield
    assert trial_processes() == []
    assert shared_memory_files(before) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_configuration_is_measured_with_its_circumstances(tmp_path, runner, workers):
    record = runner.run(trial_request(tmp_path, config={"num_workers": workers}, number=3))
    measured = record.measurement
    assert record.failure is None
    assert measured.samples_per_s > 0
    assert measured.epoch_samples == 64
    assert measured.memory.instrument == "rss_anon"
    assert measured.memory.device_limit_bytes == int(record.machine.memory_bytes * 0.8)
    assert measured.memory.host_pss_bytes > 0
    assert (measured.memory.shm_predicted_bytes is None) == (workers == 0)
    assert record.dataset.type_name == "trial_datasets.Plain"
    assert (record.number, record.attempts, record.study) == (3, 1, "tested")
    assert record.wall_s >= measured.phases.measured_s > 0
    assert type(record).from_json(record.to_json()) == record


def test_a_dataset_that_was_sent_as_an_object_is_measured(tmp_path, runner):
    payload = tmp_path / "payload"
    payload.write_bytes(cloudpickle.dumps({"dataset": TensorDataset(torch.zeros(32, 2))}))
    assert runner.run(object_request(tmp_path, payload)).measurement.epoch_samples == 32


def test_a_step_and_a_collate_function_that_were_sent_are_used(tmp_path, runner):
    noted = tmp_path / "noted"

    def collate(samples):
        return torch.stack(samples) + 1

    def step(batch):
        with noted.open("a") as file:
            file.write(f"{float(batch.min())}\n")

    payload = tmp_path / "payload"
    payload.write_bytes(cloudpickle.dumps({"step": step, "collate_fn": collate}))
    request = trial_request(tmp_path, workload={"consumer": Consumer(kind="step")}, payload_path=str(payload))
    assert runner.run(request).failure is None
    assert min(map(float, noted.read_text().split())) == 1.0


def test_a_subset_is_measured_and_the_full_epoch_predicted(tmp_path, runner):
    noted = tmp_path / "noted"
    consumer = Consumer(kind="step", step="trial_datasets:make_counting_step", step_arguments={"path": str(noted)})
    workload = {"subset": 10, "consumer": consumer}
    measured = runner.run(trial_request(tmp_path, "Plain", {"count": 10_000}, workload=workload)).measurement
    assert measured.epoch_samples == 10_000
    assert set(noted.read_text().split()) == {"8", "2"}


def test_a_memory_cache_is_filled_apart_and_answers_every_read(tmp_path, runner):
    measured = runner.run(trial_request(tmp_path, config={"cache": "memory", "num_workers": 1})).measurement
    assert measured.phases.cache_fill_s > 0
    assert measured.cache.fraction == 1.0
    assert measured.cache.hits > 0
    assert measured.cache.misses == 0


def test_an_archive_is_built_once_and_its_time_is_apart(tmp_path, runner):
    paths = []
    for number in range(16):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(bytes([number]) * 512)
        paths.append(str(path))
    request = trial_request(tmp_path, "Files", {"paths": paths, "length": 512}, config={"archive": "npy"})
    first, second = runner.run(request), runner.run(request)
    assert first.measurement.phases.archive_build_s > 0
    assert second.measurement.phases.archive_build_s == 0
    assert first.measurement.archive.size_bytes >= 16 * 512
    assert second.measurement.archive == first.measurement.archive
    assert first.measurement.archive.build_s > 0
    assert second.measurement.page_cache in {"warm", "unknown"}


def test_cold_files_are_evicted_before_every_pass(tmp_path, runner):
    paths = []
    for number in range(64):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(os.urandom(100_000))
        paths.append(str(path))
    files = {"paths": paths, "length": 100_000}
    cold = runner.run(trial_request(tmp_path, "Files", files, workload={"page_cache": "cold"})).measurement
    warm = runner.run(trial_request(tmp_path, "Files", files)).measurement
    if cold.page_cache == "unknown":
        pytest.skip("this file system cannot drop pages")
    assert (cold.page_cache, warm.page_cache) == ("cold", "warm")
    epochs = sum(window.samples for window in cold.windows) / 64
    assert cold.bytes_read >= epochs * 64 * 100_000
    assert warm.bytes_read < 64 * 100_000


def test_a_streaming_dataset_is_measured(tmp_path, runner):
    record = runner.run(trial_request(tmp_path, "Stream", config={"num_workers": 2}))
    assert record.failure is None
    assert record.measurement.epoch_samples == 64


@pytest.mark.parametrize("factory", ["Stream", "SizedStream"])
def test_a_stream_that_every_worker_repeats_is_refused(tmp_path, runner, factory):
    request = trial_request(tmp_path, factory, {"sharded": False}, config={"num_workers": 2})
    failure = runner.run(request).failure
    assert failure.kind == "repeated_samples"
    assert not failure.infeasible


def test_inspecting_tells_dataset_and_machine(tmp_path, runner):
    found = runner.inspect(trial_request(tmp_path))
    assert found.dataset.length == 64
    assert found.sample_bytes == 16
    assert found.machine.cpu_count >= 1


def test_inspecting_what_cannot_be_built_is_a_failure(tmp_path, runner):
    found = runner.inspect(trial_request(tmp_path, "Missing"))
    assert isinstance(found, Failure)
    assert found.kind == "invalid"
    assert "Missing" in found.message


@pytest.mark.parametrize(
    ("factory", "arguments", "kind"),
    [
        ("Raises", {"kind": "memory"}, "host_memory"),
        ("Raises", {"kind": "value"}, "bad_data"),
        ("Plain", {"unknown": 1}, "bad_data"),
        ("Nothing", {}, "invalid"),
    ],
)
def test_what_a_dataset_raises_is_a_failure_of_its_kind(tmp_path, runner, *, factory, arguments, kind):
    for workers in (0, 1):
        config = {"num_workers": workers}
        record = runner.run(trial_request(tmp_path, factory, arguments, config=config, batch_bytes=64))
        assert record.failure.kind == kind
        assert record.attempts == 1


def test_a_step_that_takes_too_much_memory_is_infeasible(tmp_path, runner):
    consumer = Consumer(kind="step", step="trial_datasets:make_hungry_step", step_arguments={"megabytes": 64})
    limit = MemoryLimit(size_bytes=32 * 1024**2)
    record = runner.run(trial_request(tmp_path, workload={"consumer": consumer, "memory_limit": limit}))
    assert record.failure.kind == "device_memory"
    assert record.failure.infeasible
    assert record.failure.excess > 0.5


def test_a_step_that_raises_is_invalid(tmp_path, runner):
    consumer = Consumer(kind="step", step="trial_datasets:make_failing_step")
    failure = runner.run(trial_request(tmp_path, workload={"consumer": consumer})).failure
    assert failure.kind == "invalid"
    assert "does not like this batch" in failure.message


def test_shared_memory_that_cannot_hold_the_batches_is_predicted(tmp_path, runner):
    failure = runner.run(trial_request(tmp_path, config={"num_workers": 1}, batch_bytes=1 << 50)).failure
    assert (failure.kind, failure.phase, failure.infeasible) == ("shared_memory", "predict", True)


def test_the_same_seed_gives_the_same_order_whatever_the_workers(tmp_path, runner):
    orders = []
    for workers in (0, 2):
        noted = tmp_path / f"noted{workers}"

        def step(batch, noted=noted):
            with noted.open("a") as file:
                file.write(f"{batch[:, 0].tolist()}\n")

        payload = tmp_path / f"payload{workers}"
        payload.write_bytes(cloudpickle.dumps({"step": step}))
        workload = {"consumer": Consumer(kind="step"), "seed": 5}
        request = trial_request(tmp_path, workload=workload, config={"num_workers": workers}, payload_path=str(payload))
        assert runner.run(request).failure is None
        orders.append(noted.read_text().splitlines()[:8])
    assert orders[0] == orders[1]


def test_what_a_trial_leaves_behind_is_cleared_away(tmp_path, runner, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert runner.run(trial_request(tmp_path, "LeavesThings")).failure is None
    assert list(folder.iterdir()) == []
    commands = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if command and command[-1] in {"987654", "987653"}]


def test_a_fresh_interpreter_gives_the_same_as_a_fork(tmp_path):
    with LocalRunner(start="fresh") as fresh:
        record = fresh.run(trial_request(tmp_path, config={"num_workers": 1}))
        assert record.failure is None
        assert record.measurement.epoch_samples == 64


def test_closing_ends_the_server_and_a_closed_runner_starts_again(tmp_path):
    running = LocalRunner()
    assert running.run(trial_request(tmp_path)).failure is None
    server = psutil.Process(running._server.pid)
    running.close()
    running.close()
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    assert running.run(trial_request(tmp_path)).failure is None
    running.close()


def test_the_tuners_process_needs_no_torch():
    code = "import sys, autotune.trial; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


SCRIPT = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, {support!r})
    import cloudpickle
    from pathlib import Path
    import torch
    from torch.utils.data import Dataset
    from trial_requests import object_request
    from autotune.trial import LocalRunner

    class Mine(Dataset):
        def __len__(self):
            return 40
        def __getitem__(self, index):
            return helper(index)

    def helper(index):
        return torch.full((2,), float(index))

    print("started")  # an unguarded script: it must not run again in any child
    folder = Path({folder!r})
    (folder / "payload").write_bytes(cloudpickle.dumps({{"dataset": Mine()}}))
    with LocalRunner() as runner:
        for workers in (0, 2):
            record = runner.run(object_request(folder, folder / "payload", config={{"num_workers": workers}}))
            print(record.failure or record.measurement.epoch_samples)
    """
)


def test_a_class_of_an_unguarded_script_is_measured_with_and_without_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(support=SUPPORT, folder=str(tmp_path)))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["started", "40", "40"]
