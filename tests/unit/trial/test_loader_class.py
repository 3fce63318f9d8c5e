"""Trials that load with another library's class."""

import pytest
from trial_requests import trial_request

from autotune.spec import DatasetSource, StudySpec
from autotune.trial import LocalRunner


@pytest.fixture(scope="module")
def runner():
    with LocalRunner() as running:
        yield running


def request_with(tmp_path, loader_class, **config):
    source = DatasetSource(factory="loader_classes:NotedNumbers", arguments={"noted": str(tmp_path / "noted")})
    return trial_request(tmp_path, workload={"dataset": source, "loader_class": loader_class}, config=config)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_trial_loads_with_the_class_that_the_study_names(tmp_path, runner, workers):
    record = runner.run(request_with(tmp_path, "loader_classes:NotingLoader", num_workers=workers))
    assert record.failure is None
    assert record.measurement.epoch_samples == 64
    assert (tmp_path / "noted").read_text() == f"NotingLoader with {workers} workers"


@pytest.mark.parametrize(
    ("path", "told"),
    [("loader_classes:Absent", "has no 'Absent'"), ("loader_classes:not_callable", "must be callable, got int")],
)
def test_a_class_that_cannot_load_is_told(tmp_path, runner, path, told):
    failure = runner.run(request_with(tmp_path, path)).failure
    assert failure.kind == "invalid"
    assert told in failure.message


def test_a_path_of_another_form_is_refused_with_the_form():
    with pytest.raises(ValueError, match=r"has the form package\.module:callable, got 'KerasLoader'"):
        StudySpec(name="s", dataset="pack:make", budget="1m", loader_class="KerasLoader")
