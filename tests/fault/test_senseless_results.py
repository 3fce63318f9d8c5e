"""Fault 30: results that make no sense, data that is hardly there, and bests from elsewhere are never handed out."""

import sqlite3

import cloudpickle
import pytest
import torch
from limited_machine import limited_environ
from pydantic import ValidationError
from registry_values import Numbers, decision_here, record
from study_records import measurement
from torch.utils.data import TensorDataset
from trial_datasets import Plain
from trial_requests import trial_request

from autotune.compose import places, tune, tune_study
from autotune.data.facts import dataset_facts
from autotune.errors import DatasetError
from autotune.machine import machine_facts
from autotune.registry import open_existing, open_registry
from autotune.resolve.best import best_config, best_loader
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import LoaderConfig
from autotune.spec.study_file import spec_from_fields
from autotune.trial import LocalRunner

pytestmark = pytest.mark.fault(30)

SMALL_SPACE = {
    "batch_size": [2, 64],
    "num_workers": [0, 1],
    "prefetch_factor": 2,
    "cache": "none",
    "archive": "files",
}


# Rates


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 0.0, -3.0])
def test_a_senseless_rate_cannot_even_be_written_down(rate):
    with pytest.raises(ValidationError, match="samples_per_s"):
        measurement(100.0, samples_per_s=rate)


@pytest.mark.parametrize(("count", "kind"), [(64, "empty"), (10_000_000, "senseless")])
def test_batches_without_samples_are_no_rate(tmp_path, count, kind):
    def collate(samples):
        return torch.empty(0, len(samples[0]))

    payload = tmp_path / "payload"
    payload.write_bytes(cloudpickle.dumps({"collate_fn": collate}))
    with LocalRunner() as runner:
        failure = runner.run(trial_request(tmp_path, "Stream", {"count": count}, payload_path=str(payload))).failure
        assert runner.run(trial_request(tmp_path)).failure is None
    assert (failure.kind, failure.infeasible, failure.retryable) == (kind, False, False)


@pytest.mark.parametrize("rate", ["9e999", "-9e999", "0.0", "-1.0"])
def test_a_senseless_rate_in_the_registry_is_never_the_best_that_was_measured(tmp_path, rate):
    dataset = Numbers()
    here = {"machine": machine_facts(), "dataset": dataset_facts(dataset)}
    with open_registry(tmp_path) as registry:
        registry.save_decision(decision_here(dataset, LoaderConfig(archive="npy").canonical(has_accelerator=False)))
        for workers in (1, 2):
            config = LoaderConfig(num_workers=workers).canonical(has_accelerator=False)
            registry.save_record(record(f"w{workers}", rate=50.0, config=config, **here))
    with sqlite3.connect(tmp_path / "registry.db") as connection:
        changed = connection.execute(f"UPDATE trial_records SET samples_per_s = {rate} WHERE num_workers = 2")
        assert changed.rowcount == 1
    connection.close()
    with pytest.warns(AutotuneWarning, match="archive=files instead"):
        loader = best_loader(dataset, home=tmp_path)
    assert loader.num_workers == 1, "what stands in for the missing archive is the best that makes sense"
    resolution = best_config(dataset, home=tmp_path, archive="files")
    assert resolution.config.num_workers == 1
    assert resolution.served_samples_per_s == 50.0


# Data that is hardly there


@pytest.mark.slow
def test_an_empty_dataset_is_refused_before_anything_is_tried_and_leaves_the_default(tmp_path):
    dataset = TensorDataset(torch.zeros(0, 4))
    for _ in range(2):  # the second time shows that nothing was left locked
        with pytest.raises(DatasetError, match="empty"):
            tune(dataset, "5s", home=tmp_path, progress=False)
    with open_existing(tmp_path) as registry:
        assert registry.decisions() == []
        assert registry.studies() == []
    resolution = best_config(dataset, home=tmp_path)
    assert (resolution.match, resolution.config) == ("default", LoaderConfig())
    assert "empty" in resolution.why[0]
    assert list(best_loader(dataset, home=tmp_path)) == []


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, pytest.param(5, marks=pytest.mark.long)])
def test_a_dataset_smaller_than_a_batch_is_tuned_to_a_decision_and_loaded_whole(tmp_path, count):
    dataset = TensorDataset(torch.arange(4.0 * count).reshape(count, 4))
    summary = tune(dataset, "5s", home=tmp_path, progress=False, space=SMALL_SPACE)
    assert summary.outcome in {"gain", "nothing_to_gain", "undecided"}
    assert summary.trials.failed == summary.trials.infeasible == 0
    with open_existing(tmp_path) as registry:
        records = registry.records(summary.study)
    assert records
    assert {record.measurement.epoch_samples for record in records} == {count}
    (batch,) = best_loader(dataset, home=tmp_path, batch_size=64)
    assert torch.equal(batch[0], dataset.tensors[0])


# Bests from elsewhere


def _spec():
    return spec_from_fields({
        "name": "elsewhere",
        "dataset": {"factory": "trial_datasets:Plain", "arguments": {"count": 64, "work_ms": 0.2}},
        "device": "cpu",
        "budget": {"time": "5s", "trials": 4},
        "space": {**SMALL_SPACE, "batch_size": 8},
        "time_cap_s": 0.2,
        "confirm_time_cap_s": 0.2,
    })  # fmt: skip


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """What a real study measured and decided, to be passed off as another machine's."""
    folder = tmp_path_factory.mktemp("elsewhere")
    at = places(folder / "home", environ=limited_environ(folder))
    tune_study(_spec(), at=at)
    with open_existing(at.home) as registry:
        return registry.records("elsewhere"), registry.decisions("elsewhere")[0]


OTHER_CLASS = {"cpu_count": 192, "accelerator": "H100", "accelerator_count": 8, "accelerator_memory_bytes": 2**36}
OTHER_MAJORS = {"versions": {**machine_facts(accelerator=False).versions, "torch": "1.13.1"}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(OTHER_CLASS, id="another class"),
        pytest.param(OTHER_MAJORS, id="other major versions", marks=pytest.mark.long),
    ],
)
@pytest.mark.long
def test_a_best_from_elsewhere_is_no_answer_here_and_what_was_measured_there_is_measured_anew(
    tmp_path, elsewhere, changes
):
    records, decision = elsewhere
    worker = next(record.config for record in records if record.config.num_workers == 1)
    at = places(tmp_path / "home", environ=limited_environ(tmp_path))
    with open_registry(at.home) as registry:
        for number, one in enumerate(records):
            # rates that nothing here can reach
            there = one.machine.replace(**changes)
            boasting = measurement(1e9 if one.config == worker else 1e8)
            registry.save_record(one.replace(key=f"there{number}", machine=there, measurement=boasting))
        boast = {"config": worker, "outcome": "gain", "samples_per_s": 1e9}
        foreign = decision.replace(key="foreign", machine=decision.machine.replace(**changes), **boast)
        registry.save_decision(foreign)

    dataset = Plain()
    before = best_config(dataset, home=at.home, study="elsewhere")
    assert (before.match, before.config.num_workers) == ("default", 0)
    told = " ".join(before.why)
    assert "another machine" in told or "other major versions" in told

    tune_study(_spec(), at=at)
    with open_existing(at.home) as registry:
        ours = [one for one in registry.records("elsewhere") if not one.key.startswith("there")]
        newest = registry.decisions("elsewhere")[0]
    searched = {one.config for one in ours if one.phase == "search"}
    assert {one.config for one in records if one.phase == "search"} <= searched, "a record from elsewhere answered"
    assert newest.key != "foreign"
    assert newest.samples_per_s < 1e7
    after = best_config(dataset, home=at.home, study="elsewhere", batch_size=8)
    assert (after.match, after.decision_key) == ("exact", newest.key)
