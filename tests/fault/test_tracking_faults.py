"""Faults 5 and 9: MLflow is down, slow or broken, or the tuner is killed; every trial ends up there once."""

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from limited_machine import limited_environ

from autotune.compose import places, tune_study
from autotune.registry import open_registry
from autotune.spec import (
    DatasetSource,
    Failure,
    LoaderConfig,
    StudySpec,
    StudyStarted,
    TrialFinished,
    TrialRecord,
    Workload,
)
from autotune.spec.study_file import spec_from_fields
from autotune.tracking.mlflow_listener import TOPIC, MlflowListener, default_tracking_uri

pytestmark = pytest.mark.fault

RUN = "b" * 32


def trial(number):
    record = TrialRecord(
        key=f"{number:032x}",
        study="s",
        number=number,
        workload=Workload(dataset=DatasetSource(factory="a.b:c")),
        config=LoaderConfig(batch_size=number + 1),
        failure=Failure(kind="crashed", phase="measure", message="for the test"),
    )
    return TrialFinished(run_key=RUN, phase="search", record=record, budget_s=60)


def started():
    return StudyStarted(run_key=RUN, spec=StudySpec(name="s", dataset="a.b:c", budget="1m"))


def trial_keys(uri):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("s").experiment_id])
    parents = [run for run in runs if run.data.tags["autotune.role"] == "study"]
    assert len(parents) == 1
    trials = [run for run in runs if run.data.tags["autotune.role"] == "trial"]
    assert {run.info.status for run in trials} <= {"FAILED"}
    assert {run.data.params["batch_size"] for run in trials} == {
        str(int(run.info.run_name.split()[1][:-1]) + 1) for run in trials
    }
    return sorted(run.data.tags["autotune.trial_key"] for run in trials)


class Clock:
    """A clock that a test turns by hand."""

    def __init__(self):
        self.time_s = 0.0

    def __call__(self):
        return self.time_s


@contextmanager
def refusing():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        yield taken.getsockname()[1], []


@contextmanager
def sleeping():
    """Accept connections and never answer."""
    taken, connections = [], []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connections.append(connection)
                taken.append(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], taken
    for connection in connections:
        connection.close()


class Broken(BaseHTTPRequestHandler):
    """Answers every request with a server error."""

    def answer(self):
        self.server.requests.append(self.path)
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_PUT = answer  # noqa: N815

    def log_message(self, *_):
        pass


@contextmanager
def broken():
    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        server.requests = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], server.requests
        server.shutdown()


FAULTS = {"refused": refusing, "sleeps": sleeping, "error 500": broken}


@pytest.mark.fault(9)
@pytest.mark.parametrize("fault", FAULTS)
def test_events_are_kept_while_the_server_fails_and_told_once_it_works(fault, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    clock = Clock()
    with open_registry(tmp_path) as registry, FAULTS[fault]() as (port, requests):
        listener = MlflowListener(registry, tracking_uri=f"http://127.0.0.1:{port}", clock=clock)
        listener.warm_up()
        after_first = len(requests)
        listener.on_start(started())
        for number in range(3):
            listener.on_trial(trial(number))
        assert len(requests) == after_first, "a server that has just failed is left alone"
        clock.time_s += 31
        listener.on_trial(trial(3))
        assert fault == "refused" or len(requests) > after_first
        assert listener.finish() == 5
        assert "5 entries could not be sent to MLflow" in caplog.text
        (first, *_) = registry.outbox_pending(TOPIC, 10)
        assert first.attempts == 2
        uri = default_tracking_uri(tmp_path)
        later = MlflowListener(registry, tracking_uri=uri, artifact_root=tmp_path / "artifacts")
        assert later.finish() == 0
    assert trial_keys(uri) == [f"{number:032x}" for number in range(4)]


def told_trials(uri, study):
    """Give the keys of the trials that MLflow has runs of."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name(study).experiment_id], max_results=1000)
    return sorted(run.data.tags["autotune.trial_key"] for run in runs if run.data.tags["autotune.role"] == "trial")


@pytest.mark.slow
@pytest.mark.fault(9)
@pytest.mark.parametrize(
    "fault", [pytest.param(one, marks=() if one == "sleeps" else pytest.mark.long) for one in FAULTS]
)
def test_a_study_measures_and_decides_while_the_server_fails_and_is_told_of_once_it_works(fault, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    spec = spec_from_fields({
        "name": "untold",
        "dataset": {"factory": "trial_datasets:Plain", "arguments": {"count": 64, "work_ms": 0.2}},
        "device": "cpu",
        "budget": {"time": "5s", "trials": 3},
        "space": {"batch_size": 8, "num_workers": [0, 1], "prefetch_factor": 2, "cache": "none", "archive": "files"},
        "time_cap_s": 0.2,
        "confirm_time_cap_s": 0.2,
    })  # fmt: skip
    with FAULTS[fault]() as (port, _):
        environ = {**limited_environ(tmp_path), "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
        summary = tune_study(spec, at=places(tmp_path, environ=environ))
    assert summary.outcome in {"gain", "nothing_to_gain", "undecided"}
    uri = default_tracking_uri(tmp_path)
    with open_registry(tmp_path) as registry:
        records = registry.records("untold")
        assert all(one.measurement is not None for one in records)
        assert MlflowListener(registry, tracking_uri=uri, artifact_root=tmp_path / "artifacts").finish() == 0
    assert told_trials(uri, "untold") == sorted(one.key for one in records)


@pytest.mark.fault(9)
def test_default_time_outs_apply_when_the_user_has_set_none(tmp_path):
    clock = Clock()
    with open_registry(tmp_path) as registry, refusing() as (port, _):
        listener = MlflowListener(registry, tracking_uri=f"http://127.0.0.1:{port}", clock=clock)
        listener.on_trial(trial(0))  # by MLflow's own defaults this would take four minutes
        assert listener.finish() == 1


@pytest.mark.fault(9)
def test_database_that_is_locked_or_no_database_holds_nothing_up(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with open_registry(tmp_path) as registry:
        listener = MlflowListener(registry, tracking_uri=default_tracking_uri(tmp_path))
        listener.warm_up()
        listener.on_trial(trial(0))
        assert listener.finish() == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from autotune.registry import Registry, open_registry
from autotune.spec import *
from autotune.tracking.mlflow_listener import MlflowListener, default_tracking_uri

where, home = sys.argv[1], Path(sys.argv[2])

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

with open_registry(home) as registry:
    listener = MlflowListener(
        registry, tracking_uri=default_tracking_uri(home), artifact_root=home / "artifacts", drain_s=0
    )
    for event in sys.argv[3:]:
        listener.on_trial(TrialFinished.from_json(event))
    from mlflow.tracking import MlflowClient
    if where == "before settling":
        Registry.outbox_settle = die
    else:
        setattr(MlflowClient, where, die)
    listener.drain(60)
"""


@pytest.mark.fault(5)
@pytest.mark.parametrize(
    "where",
    [
        pytest.param("before settling", marks=pytest.mark.long),
        "log_batch",
        pytest.param("log_text", marks=pytest.mark.long),
        pytest.param("set_terminated", marks=pytest.mark.long),
    ],
)
def test_each_trial_is_one_run_when_the_tuner_is_killed_while_telling(where, tmp_path):
    events = [trial(number).to_json() for number in range(2)]
    uri = default_tracking_uri(tmp_path)
    with open_registry(tmp_path) as registry:
        listener = MlflowListener(registry, tracking_uri=uri, artifact_root=tmp_path / "artifacts")
        listener.on_start(started())
        assert listener.finish() == 0
    for _ in range(2):  # killed twice at the same place
        done = subprocess.run(
            [sys.executable, "-c", KILLED, where, str(tmp_path), *events],
            check=False, capture_output=True, text=True, env=dict(os.environ),
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
    with open_registry(tmp_path) as registry:
        assert len(registry.outbox_pending(TOPIC, 10)) == 2
        assert MlflowListener(registry, tracking_uri=uri, artifact_root=tmp_path / "artifacts").finish() == 0
    assert trial_keys(uri) == [f"{number:032x}" for number in range(2)]
