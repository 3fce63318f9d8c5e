"""A training is one run of MLflow, and MLflow never an obstacle."""

import logging
import math
import socket
import sqlite3

import pytest

from autotune.tracking.training_runs import TrainingRun


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def client(uri):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


@pytest.fixture
def make(uri, tmp_path):
    def made(**settings):
        given = {"tracking_uri": uri, "experiment": "trainings", "artifact_root": tmp_path / "artifacts"}
        return TrainingRun(**{**given, "now": lambda: 1_900_000_000.0, **settings})

    return made


def refusing_uri():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def runs_of(client):
    return client.search_runs([client.get_experiment_by_name("trainings").experiment_id])


def test_a_training_is_one_run_with_parameters_tags_figures_files_and_an_end(make, client, tmp_path):
    picture = tmp_path / "epoch.png"
    picture.write_bytes(b"picture")
    run = make(run_name="mine")
    run.begin(params={"epochs": "2", "long": "x" * 9000}, tags={"autotune.study": "forest_gaps"})
    run.log_metrics({"train_loss": 0.5, "val_loss": math.nan}, step=0)
    run.log_metrics({"train_loss": 0.25}, step=1)
    run.log_file(picture, folder="pictures")
    run.finish()
    (told,) = runs_of(client)
    assert told.info.run_id == run.run_id
    assert told.info.run_name == "mine"
    assert told.info.status == "FINISHED"
    assert told.data.params["epochs"] == "2"
    assert told.data.tags["autotune.study"] == "forest_gaps"
    assert told.data.tags["autotune.role"] == "training"
    history = client.get_metric_history(run.run_id, "train_loss")
    assert [(entry.step, entry.value, entry.timestamp) for entry in history] == [
        (0, 0.5, 1_900_000_000_000),
        (1, 0.25, 1_900_000_000_000),
    ]
    assert "val_loss" not in told.data.metrics
    assert [file.path for file in client.list_artifacts(run.run_id, "pictures")] == ["pictures/epoch.png"]
    assert run.waiting == 0


def test_many_parameters_are_told_in_parts(make, client):
    run = make()
    run.begin(params={f"field_{number}": "1" for number in range(250)}, tags={})
    assert len(client.get_run(run.run_id).data.params) == 250


def test_a_training_that_goes_on_goes_on_in_its_run(make, client):
    first = make()
    first.begin(params={"epochs": "2"}, tags={})
    first.finish("FAILED")
    second = make()
    second.continue_run(first.run_id)
    second.begin(params={"epochs": "3", "further": "1"}, tags={})
    assert client.get_run(first.run_id).info.status == "RUNNING"
    second.finish()
    (told,) = runs_of(client)
    assert told.info.status == "FINISHED"
    assert told.data.params == {"epochs": "2", "further": "1"}, "parameters do not change"


def test_a_run_that_is_gone_is_begun_anew(make, client):
    run = make()
    run.continue_run("f" * 32)
    run.begin(params={}, tags={})
    assert run.run_id not in (None, "f" * 32)
    first = run.run_id
    client.delete_run(first)
    again = make()
    again.continue_run(first)
    again.begin(params={}, tags={})
    assert again.run_id != first


def test_what_could_not_be_sent_is_sent_after_a_rest(make, uri, client, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    clock = Clock()
    run = make(clock=clock, rest_s=30.0)
    run.begin(params={}, tags={})
    run._client = None
    run._tracking_uri = refusing_uri()
    run.log_metrics({"loss": 1.0}, step=0)
    assert run.waiting == 1
    assert "left alone for a while" in caplog.text
    run._client, run._tracking_uri = None, uri
    run.log_metrics({"loss": 2.0}, step=1)
    assert run.waiting == 2, "MLflow rests"
    clock.now_s = 31.0
    run.log_metrics({"loss": 3.0}, step=2)
    assert run.waiting == 0
    assert [entry.value for entry in client.get_metric_history(run.run_id, "loss")] == [1.0, 2.0, 3.0]


def test_a_server_that_is_not_there_costs_no_training_and_is_told_at_the_end(make, caplog):
    run = make(tracking_uri=refusing_uri(), clock=Clock())
    run.begin(params={"epochs": "2"}, tags={})
    run.log_metrics({"loss": 1.0}, step=0)
    run.finish()
    assert run.run_id is None
    assert "3 entries of the training could not be sent" in caplog.text


def test_a_database_that_is_none_costs_no_training(make, tmp_path):
    (tmp_path / "broken.db").write_bytes(b"no database at all" * 100)
    run = make(tracking_uri=f"sqlite:///{tmp_path / 'broken.db'}")
    run.begin(params={}, tags={})
    run.finish()
    assert run.waiting


def test_what_mlflow_refuses_is_left_out_and_the_rest_is_told(make, client, caplog):
    run = make()
    run.begin(params={}, tags={})
    run.log_metrics({"no|name": 1.0}, step=0)
    run.log_metrics({"loss": 1.0}, step=0)
    assert "refused a part of the training" in caplog.text
    assert client.get_run(run.run_id).data.metrics == {"loss": 1.0}


def test_a_call_that_failed_after_it_was_done_makes_no_second_run(make, client):
    run = make()
    run.begin(params={}, tags={})
    first, run.run_id = run.run_id, None  # as after an answer that was lost
    run.log_metrics({"loss": 1.0}, step=0)
    assert run.run_id == first
    assert len(runs_of(client)) == 1


def test_the_store_is_a_file_of_its_own(make, tmp_path):
    make().begin(params={}, tags={})
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("select count(*) from runs").fetchone() == (1,)
