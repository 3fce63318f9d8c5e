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
def uri(tmp_path, make_mlflow_database):
    make_mlflow_database(tmp_path / "mlflow.db")
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


def files_of(client, run):
    return [file.path for file in client.list_artifacts(run.run_id)]


def test_a_file_that_is_gone_holds_nothing_up(make, client, tmp_path, caplog):
    there = tmp_path / "there.png"
    there.write_bytes(b"picture")
    run = make(clock=Clock())
    run.begin(params={}, tags={})
    run.log_file(tmp_path / "gone.png")
    run.log_file(there)
    run.log_metrics({"loss": 1.0}, step=0)
    run.finish()
    told = client.get_run(run.run_id)
    assert (told.info.status, told.data.metrics) == ("FINISHED", {"loss": 1.0})
    assert files_of(client, run) == ["there.png"]
    assert "gone.png is not kept with the run" in caplog.text
    assert run.waiting == 0


def test_a_folder_of_artifacts_that_takes_no_file_holds_nothing_up(make, client, tmp_path, caplog):
    (tmp_path / "artifacts").write_text("no folder")
    picture = tmp_path / "epoch.png"
    picture.write_bytes(b"picture")
    run = make(clock=Clock())
    run.begin(params={}, tags={})
    for step in range(3):
        run.log_file(picture)
        run.log_metrics({"loss": 1.0}, step=step)
        run.note(params={}, tags={"step": str(step)})
    run.finish("FAILED")
    told = client.get_run(run.run_id)
    assert (told.info.status, told.data.tags["step"]) == ("FAILED", "2")
    assert len(client.get_metric_history(run.run_id, "loss")) == 3
    assert caplog.text.count("epoch.png is not kept with the run") == 3


def test_the_end_of_a_run_is_told_whatever_before_it_cannot_be(make, client, tmp_path, caplog):
    picture = tmp_path / "epoch.png"
    picture.write_bytes(b"picture")
    run = make(clock=Clock())
    run.begin(params={}, tags={})
    run.log_metrics({"loss": 1.0}, step=2**70)  # more than the database takes, which is no refusal of MLflow's
    assert run.waiting == 1
    run.log_file(picture)
    run.finish()
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert files_of(client, run) == ["epoch.png"]
    assert "1 entries of the training could not be sent" in caplog.text


class Hurrying(Clock):
    """Seconds that pass whenever somebody looks, so that every call seems slow."""

    def __call__(self):
        self.now_s += 10.0
        return self.now_s


def test_calls_that_are_slow_are_all_made_at_the_end(make, client, tmp_path):
    pictures = [tmp_path / f"{number}.png" for number in range(2)]
    for picture in pictures:
        picture.write_bytes(b"picture")
    run = make(clock=Hurrying(), rest_s=10_000.0)
    run.begin(params={}, tags={})
    for step, picture in enumerate(pictures):
        run.log_metrics({"loss": 1.0}, step=step)
        run.log_file(picture)
    assert run.waiting == 4, "MLflow rests after a slow call"
    run.finish()
    assert run.waiting == 0
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(run.run_id, "loss")) == 2
    assert files_of(client, run) == ["0.png", "1.png"]


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
