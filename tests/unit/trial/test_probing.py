"""Probes of small datasets in real processes."""

import pytest
import trial_datasets
from trial_requests import descendants, object_request, trial_request

from autotune.spec import Consumer, Failure, MemoryLimit, Profile
from autotune.trial import LocalRunner
from autotune.trial.payload import payload_file
from autotune.units import MIB

SIZES = (2, 4, 8)


@pytest.fixture(scope="module")
def runner():
    before = set(descendants())
    with LocalRunner() as made:
        yield made
    assert set(descendants()) <= before


def probed(runner, tmp_path, factory="Plain", arguments=None, *, sizes=SIZES, **workload):
    request = trial_request(tmp_path, factory, arguments, workload=workload)
    return runner.probe(request.replace(probe_batch_sizes=sizes))


def test_a_probe_finds_what_a_sample_takes_and_a_bound_for_every_batch_size(runner, tmp_path):
    slow, fast = (probed(runner, tmp_path, arguments={"work_ms": work_ms}) for work_ms in (3.0, 0.3))
    assert isinstance(slow, Profile)
    assert slow.sample_s >= 0.003
    assert 0.0003 <= fast.sample_s < slow.sample_s
    assert [bound.batch_size for bound in slow.bounds] == list(SIZES)
    # the bound leaves the work on samples out
    assert all(bound.samples_per_s > 1 / slow.sample_s for bound in slow.bounds)
    assert slow.read_s is None


def test_a_consumer_lowers_the_bound_to_its_own_rate(runner, tmp_path):
    found = probed(runner, tmp_path, consumer=Consumer(kind="emulated", step_ms=5, step_ms_per_sample=2))
    for bound in found.bounds:
        assert bound.samples_per_s <= bound.batch_size / (0.005 + 0.002 * bound.batch_size)
    assert found.consume.per_sample == pytest.approx(0.002, rel=0.5)
    assert found.consume_cpu_share < 0.5


def test_stages_are_told_apart_where_the_dataset_has_them(runner, tmp_path):
    found = probed(runner, tmp_path, "SlowStages", {"read_ms": 1.0, "decode_ms": 3.0, "augment_ms": 2.0})
    assert found.read_s >= 0.001
    assert found.decode_s >= 0.003
    assert found.augment_s >= 0.002
    assert found.sample_s >= 0.006


def test_memory_grows_along_a_line_and_the_limit_ends_the_probe_without_failing_it(runner, tmp_path):
    # large beside the few MiB that an interpreter takes now and then, whatever the batch
    step = Consumer(kind="step", step="trial_datasets:make_growing_step", step_arguments={"mib_per_sample": 16})
    sizes = (2, 4, 8, 64)
    found = probed(runner, tmp_path, sizes=sizes, consumer=step, memory_limit=MemoryLimit(size_bytes=400 * MIB))
    assert found.memory_alone.per_sample == pytest.approx(16 * MIB, rel=0.3)
    assert found.memory_workers.per_sample == pytest.approx(16 * MIB, rel=0.3)
    assert [bound.batch_size for bound in found.bounds] == [2, 4, 8]


def test_a_smallest_batch_that_breaks_the_limit_is_told_as_that(runner, tmp_path):
    step = Consumer(kind="step", step="trial_datasets:make_growing_step", step_arguments={"mib_per_sample": 100})
    found = probed(runner, tmp_path, consumer=step, memory_limit=MemoryLimit(size_bytes=50 * MIB))
    assert isinstance(found, Failure)
    assert found.kind == "device_memory"


@pytest.mark.parametrize("factory", ["Stream", "SizedStream"])
def test_iterable_datasets_are_probed_from_their_beginning(runner, tmp_path, factory):
    found = probed(runner, tmp_path, factory)
    assert found.sample_s > 0
    assert len(found.bounds) == len(SIZES)


def test_a_dataset_that_cannot_be_read_is_a_failure(runner, tmp_path):
    found = probed(runner, tmp_path, "Raises", {"kind": "value"})
    assert isinstance(found, Failure)
    assert found.phase == "probe"


# Before it is handed out


def verified(runner, tmp_path, factory, arguments=None, *, limit=None, **workload):
    limits = {} if limit is None else {"memory_limit": MemoryLimit(size_bytes=limit)}
    request = trial_request(tmp_path, factory, arguments, phase="verify", workload={**limits, **workload})
    return runner.run(request)


def test_the_largest_samples_together_must_fit(runner, tmp_path):
    """One sample in fifty is long: an epoch hardly ever has two of them in a batch, and training may."""
    dataset = trial_datasets.Varying(count=100, short=16, long=12 * MIB, every=50)
    with payload_file({"dataset": dataset, "collate_fn": trial_datasets.pad}, tmp_path) as path:
        request = object_request(tmp_path, path, phase="verify")

        def outcome(limit):
            return runner.run(
                request.replace(workload=request.workload.replace(memory_limit=MemoryLimit(size_bytes=limit)))
            )

        assert outcome(1000 * MIB).measurement
        assert outcome(64 * MIB).failure.kind == "device_memory"


def test_an_evaluation_pass_must_fit(runner, tmp_path):
    step = Consumer(kind="step", step="trial_datasets:make_growing_step", step_arguments={"evaluation_mib": 60})
    assert verified(runner, tmp_path, "Plain", consumer=step, limit=200 * MIB).measurement
    failed = verified(runner, tmp_path, "Plain", consumer=step, limit=40 * MIB).failure
    assert failed.kind == "device_memory"
    assert runner.run(trial_request(tmp_path, workload={"consumer": step})).measurement
