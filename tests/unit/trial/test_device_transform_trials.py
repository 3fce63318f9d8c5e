"""What a dataset does to batches on the device is part of what is measured, in real processes."""

from pathlib import Path

import cloudpickle
import pytest
import torch
from torch.utils.data import Dataset, Subset
from trial_datasets import OnDevice
from trial_requests import object_request, trial_request

from autotune.spec import Consumer, Failure
from autotune.trial import LocalRunner

SLEEP_MS = 10.0


@pytest.fixture(scope="module")
def runner():
    with LocalRunner() as running:
        yield running


def noted(path):
    """Give the processes that ran the transform, and the samples of each batch."""
    lines = [line.split() for line in Path(path).read_text().splitlines()]
    return {pid for pid, _ in lines}, [int(samples) for _, samples in lines]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["loader", "emulated"])
def test_it_runs_for_every_batch_in_the_measuring_process_inside_the_window(tmp_path, runner, workers, kind):
    consumer = Consumer(kind=kind, step_ms=0.1 if kind == "emulated" else 0.0)
    arguments = {"path": str(tmp_path / "noted"), "sleep_ms": SLEEP_MS}
    record = runner.run(
        trial_request(tmp_path, "OnDevice", arguments, config={"num_workers": workers}, workload={"consumer": consumer})
    )
    processes, samples = noted(tmp_path / "noted")
    windows = record.measurement.windows
    assert len(processes) == 1, "never in a worker"
    assert len(samples) >= sum(window.batches for window in windows)
    assert set(samples) == {8}
    for window in windows:
        assert window.seconds - window.wait_s >= window.batches * SLEEP_MS / 1000


def test_the_bound_and_the_share_of_the_consumer_know_of_it(tmp_path, runner):
    request = trial_request(tmp_path, "OnDevice", {"sleep_ms": SLEEP_MS})
    found = runner.probe(request.replace(probe_batch_sizes=(4, 8)))
    for bound in found.bounds:
        assert bound.samples_per_s <= bound.batch_size / (SLEEP_MS / 1000)
        assert found.consume.at(bound.batch_size) >= 0.9 * SLEEP_MS / 1000


def test_step_and_evaluation_pass_take_what_it_gives(tmp_path, runner):
    consumer = Consumer(kind="step", step="trial_datasets:make_step_on_transformed")
    request = trial_request(tmp_path, "OnDevice", workload={"consumer": consumer}, phase="verify")
    assert runner.run(request).failure is None


@pytest.mark.parametrize("config", [{"archive": "npy"}, {"cache": "memory"}])
def test_it_is_found_behind_archives_and_caches(tmp_path, runner, config):
    path = tmp_path / "noted"
    request = trial_request(tmp_path, "Recognised", {"path": str(path)}, config=config)
    assert runner.run(request).failure is None
    assert path.exists()


def test_one_that_raises_is_the_fault_of_the_dataset_and_named(tmp_path, runner):
    request = trial_request(tmp_path, "OnDevice", {"raises": True})
    for failure in (runner.run(request).failure, runner.probe(request.replace(probe_batch_sizes=(4,)))):
        assert isinstance(failure, Failure)
        assert failure.kind == "invalid"
        assert (
            "device_transform of the dataset raised ValueError: the device does not like this batch" in failure.message
        )


def test_one_of_a_subset_that_was_sent_as_an_object_runs(tmp_path, runner):
    payload, path = tmp_path / "payload", tmp_path / "noted"
    payload.write_bytes(cloudpickle.dumps({"dataset": Subset(OnDevice(str(path)), range(16))}))
    assert runner.run(object_request(tmp_path, payload)).failure is None
    assert set(noted(path)[1]) == {8}


def test_one_that_cannot_be_called_is_refused_with_the_way_out(tmp_path, runner):
    class Named(Dataset):
        device_transform = "normalise"

        def __len__(self):
            return 8

        def __getitem__(self, index):
            return torch.zeros(2)

    payload = tmp_path / "payload"
    payload.write_bytes(cloudpickle.dumps({"dataset": Named()}))
    failure = runner.run(object_request(tmp_path, payload)).failure
    assert failure.kind == "invalid"
    assert "got str on Named; make it a method or None" in failure.message
