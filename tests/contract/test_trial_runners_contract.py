"""What every runner of trials promises."""

import pytest
from trial_requests import descendants, trial_request

from autotune.machine import machine_facts
from autotune.spec import DatasetFacts, Inspection, LoaderConfig, TrialRecord
from autotune.trial import LocalRunner, ReplayRunner, TrialRunner
from autotune.trial.landscape import make_landscape

MEASURED = LoaderConfig(batch_size=8)


def replay():
    landscape = make_landscape(
        {MEASURED.canonical(has_accelerator=False): [100.0, 104.0]},
        machine=machine_facts(environ={}, accelerator=False),
        dataset=DatasetFacts(type_name="trial_datasets.Plain", length=64),
    )
    return ReplayRunner(landscape)


RUNNERS = {"local": LocalRunner, "replay": replay}


@pytest.fixture(params=RUNNERS, scope="module")
def runner(request):
    before = set(descendants())
    made = RUNNERS[request.param]()
    yield made
    made.close()
    made.close()
    assert set(descendants()) <= before


def test_every_runner_has_the_protocol(runner):
    assert isinstance(runner, TrialRunner)


def test_a_record_repeats_what_was_asked(tmp_path, runner):
    request = trial_request(tmp_path, number=7, phase="confirm")
    record = runner.run(request)
    assert isinstance(record, TrialRecord)
    for name in ("key", "study", "number", "phase", "workload", "config"):
        assert getattr(record, name) == getattr(request, name)
    assert record.measurement.samples_per_s > 0
    assert record.measurement.epoch_samples == 64
    assert record.dataset.length == 64
    assert record.attempts == 1


def test_a_bad_configuration_is_a_failure(tmp_path, runner):
    record = runner.run(trial_request(tmp_path, config={"decoder": "none_such"}))
    assert record.measurement is None
    assert record.failure.kind == "invalid"
    assert record.failure.message


def test_records_survive_the_way_to_the_registry(tmp_path, runner):
    record = runner.run(trial_request(tmp_path))
    assert TrialRecord.from_json(record.to_json()) == record


def test_inspection_tells_dataset_and_machine(tmp_path, runner):
    found = runner.inspect(trial_request(tmp_path))
    assert isinstance(found, Inspection)
    assert found.dataset.length == 64
