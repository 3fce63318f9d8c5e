import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from autotune.registry import open_registry
from autotune.spec import LoaderConfig, StudyEnded, StudySpec, StudyStarted, TrialFinished
from autotune.spec.study_file import parse_study
from autotune.tracking.mlflow_client import mlflow_installed, quiet_mlflow
from autotune.tracking.mlflow_listener import TOPIC, MlflowListener, default_tracking_uri

RUN = "a" * 32


@pytest.fixture
def registry(tmp_path):
    with open_registry(tmp_path / "home") as registry:
        yield registry


@pytest.fixture
def client(tmp_path, registry, make_mlflow_database):
    from mlflow.tracking import MlflowClient

    make_mlflow_database(tmp_path / "home" / "mlflow.db")
    return MlflowClient(tracking_uri=default_tracking_uri(tmp_path / "home"))


@pytest.fixture
def listener(tmp_path, registry):
    home = tmp_path / "home"
    return MlflowListener(
        registry,
        tracking_uri=default_tracking_uri(home),
        artifact_root=home / "mlartifacts",
        evidence=registry,
        address="https://tuning.example.org",
        now=lambda: 1_900_000_000.0,
    )


@pytest.fixture
def play(registry, make_record, request):
    """Give a function that tells a listener of a whole study."""
    names = ("spec", "inspection", "decision", "summary", "out_of_memory", "crashed")
    spec, inspection, decision, summary, out_of_memory, crashed = map(request.getfixturevalue, names)
    records = [
        make_record(0, rate=500.0, batch_size=32),
        make_record(1, rate=1400.0, batch_size=32, num_workers=4, archive="npy"),
        make_record(2, failure=out_of_memory, batch_size=512),
        make_record(3, failure=crashed, batch_size=16),
        make_record(4, rate=90.0, stopped="futility", batch_size=1),
        make_record(5, rate=1390.0, phase="confirm", batch_size=32, num_workers=4, archive="npy"),
    ]

    def tell(listener):
        listener.on_start(StudyStarted(run_key=RUN, spec=spec))
        listener.on_inspected(inspection)
        for record in records:
            registry.save_record(record)
            phase = "confirm" if record.phase == "confirm" else "search"
            listener.on_trial(TrialFinished(run_key=RUN, phase=phase, record=record, budget_s=120))
        registry.save_decision(decision)
        listener.on_decision(decision)
        listener.on_end(StudyEnded(run_key=RUN, summary=summary))
        return records

    return tell


def runs_of(client, study="forest_gaps"):
    experiment = client.get_experiment_by_name(study)
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["autotune.role"] == "study"]
    children = {run.data.tags["autotune.trial_key"]: run for run in runs if run.data.tags["autotune.role"] == "trial"}
    assert len(children) == len(runs) - 1, "one run a trial"
    return parent, children


def artifact(client, run, name):
    with open(client.download_artifacts(run.info.run_id, name)) as file:  # noqa: PTH123
        return file.read()


def test_study_is_one_parent_run_with_settings_outcome_and_artifacts(listener, play, client, request):
    spec, summary = request.getfixturevalue("spec"), request.getfixturevalue("summary")
    play(listener)
    parent, _ = runs_of(client)
    assert parent.info.run_name == f"forest_gaps {RUN[:8]}"
    assert parent.info.status == "FINISHED"
    assert parent.data.params["budget_s"] == "120.0"
    assert parent.data.tags["autotune.machine_class"] == "Linux x86_64, 8 CPUs, 32 GiB, no accelerator"
    assert parent.data.tags["autotune.outcome"] == "gain"
    metrics = parent.data.metrics
    assert (metrics["ratio_mean"], metrics["ratio_low"], metrics["ratio_high"]) == (2.81, 2.64, 2.97)
    names = {entry.path for entry in client.list_artifacts(parent.info.run_id)}
    assert names == {
        "study.yaml", "inspection.json", "decision.json", "champion.json", "champion_evidence.json", "summary.json",
        "report.html",
    }  # fmt: skip
    assert parse_study(artifact(client, parent, "study.yaml"), "study.yaml") == spec
    assert LoaderConfig.from_json(artifact(client, parent, "champion.json")) == summary.best
    assert json.loads(artifact(client, parent, "summary.json"))["outcome"] == "gain"
    page = artifact(client, parent, "report.html")
    assert "trial-history" in page
    assert "95 % interval 2.64 to 2.97" in page
    assert parent.data.tags["autotune.decision_page"] == f"https://tuning.example.org/decisions/{'d' * 32}"


def test_the_champion_is_kept_with_the_runs_that_it_was_promoted_on(listener, play, client, request):
    decision, records = request.getfixturevalue("decision"), play(listener)
    parent, children = runs_of(client)
    evidence = json.loads(artifact(client, parent, "champion_evidence.json"))
    assert LoaderConfig.model_validate(evidence["config"]) == decision.config
    assert evidence["decision_key"] == decision.key
    assert evidence["ratio"] == {"mean": 2.81, "low": 2.64, "high": 2.97}
    (run,) = evidence["runs"]
    assert (run["trial_key"], run["phase"], run["samples_per_s"]) == (records[5].key, "confirm", 1390.0)
    assert run["trial_key"] in children, "each run that is named is a run of MLflow"


def test_a_report_told_late_shows_what_was_known_when_the_run_ended(listener, play, client, registry, decision):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = MlflowListener(registry, tracking_uri=f"http://127.0.0.1:{free.getsockname()[1]}", evidence=registry)
        play(away)
    later = decision.replace(key="e" * 32, why="a later study", decided_at=decision.decided_at.replace(year=2031))
    registry.save_decision(later)
    assert listener.finish() == 0
    parent, _ = runs_of(client)
    page = artifact(client, parent, "report.html")
    assert "read 2.8 times as fast" in page
    assert "a later study" not in page


def test_each_trial_is_one_child_run_with_parameters_metrics_and_its_record(listener, play, client):
    records = play(listener)
    parent, children = runs_of(client)
    assert set(children) == {record.key for record in records}
    for record in records:
        run = children[record.key]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params["batch_size"] == str(record.config.batch_size)
        assert type(record).from_json(artifact(client, run, "record.json")) == record
        assert run.info.start_time == int(record.started_at.timestamp() * 1000)
        assert run.info.end_time == run.info.start_time + 3500
    measured = children[records[1].key]
    assert measured.info.run_name == "search 1: batch 32, workers 4, prefetch 2, npy"
    assert measured.data.metrics["samples_per_s"] == 1400.0
    assert measured.data.metrics["device_peak_bytes"] == 2**30 + 2**20
    assert measured.data.metrics["phase_ramp_s"] == 0.3
    assert measured.data.metrics["interval_share"] == pytest.approx(0.03)
    confirm = children[records[5].key]
    assert confirm.info.run_name.startswith("confirm: batch 32")


def test_outcome_of_each_trial_is_told_by_tag_and_status(listener, play, client):
    records = play(listener)
    _, children = runs_of(client)
    told = [(run.data.tags["autotune.outcome"], run.info.status) for run in (children[r.key] for r in records)]
    assert told == [
        ("measured", "FINISHED"),
        ("measured", "FINISHED"),
        ("infeasible", "FINISHED"),
        ("failed", "FAILED"),
        ("stopped_early", "FINISHED"),
        ("measured", "FINISHED"),
    ]
    refused = children[records[2].key].data
    assert refused.tags["autotune.failure_kind"] == "device_memory"
    assert (refused.metrics["excess"], refused.metrics["device_peak_bytes"]) == (0.15, 9 * 2**30)
    assert "samples_per_s" not in refused.metrics


def test_nothing_is_pending_and_nothing_changes_when_a_study_is_told_again(listener, play, client, registry):
    play(listener)
    parent, children = runs_of(client)
    assert registry.outbox_pending(TOPIC, 10) == []
    play(listener)
    parent_again, children_again = runs_of(client)
    assert parent_again.info.run_id == parent.info.run_id
    assert {key: run.info.run_id for key, run in children_again.items()} == {
        key: run.info.run_id for key, run in children.items()
    }


def test_metric_history_has_one_point_when_a_row_is_replayed(listener, play, client, tmp_path):
    with open_registry(tmp_path / "second") as second:
        play(listener)
        home = tmp_path / "home"
        replayed = MlflowListener(second, tracking_uri=default_tracking_uri(home), artifact_root=home / "mlartifacts")
        play(replayed)
        assert second.outbox_pending(TOPIC, 10) == []
    _, children = runs_of(client)
    for run in children.values():
        assert len(client.get_metric_history(run.info.run_id, "wall_s")) == 1


def test_second_end_of_a_resumed_run_is_told_too(listener, play, client, summary):
    play(listener)
    listener.on_end(StudyEnded(run_key=RUN, summary=summary.replace(outcome="undecided", pairs=9)))
    parent, _ = runs_of(client)
    assert parent.data.tags["autotune.outcome"] == "undecided"
    assert parent.data.metrics["pairs"] == 9


def test_study_given_as_objects_is_kept_as_json(listener, client, spec):
    objects = spec.replace(dataset={"type_name": "my.Dataset"}, consumer={"kind": "step"})
    listener.on_start(StudyStarted(run_key=RUN, spec=objects))
    assert listener.drain(10) == 1
    parent, _ = runs_of(client)
    assert StudySpec.from_json(artifact(client, parent, "study.json")) == objects


def test_row_that_cannot_be_read_stays_and_holds_up_no_other(listener, registry, client, make_record):
    registry.outbox_add("trial:broken", TOPIC, '{"schema_version": 99}')
    listener.on_trial(TrialFinished(run_key=RUN, phase="search", record=make_record(7), budget_s=1))
    (left,) = registry.outbox_pending(TOPIC, 10)
    assert (left.key, left.attempts) == ("trial:broken", 1)
    assert "needs schema_version 1, got 99" in left.message
    _, children = runs_of(client)
    assert set(children) == {make_record(7).key}


def test_rows_are_kept_when_the_experiment_was_deleted_and_told_when_it_is_restored(
    listener, registry, client, make_record
):
    listener.on_trial(TrialFinished(run_key=RUN, phase="search", record=make_record(1), budget_s=1))
    experiment = client.get_experiment_by_name("forest_gaps")
    client.delete_experiment(experiment.experiment_id)
    later = MlflowListener(registry, tracking_uri=listener._tracking_uri)
    later.on_trial(TrialFinished(run_key=RUN, phase="search", record=make_record(2), budget_s=1))
    (left,) = registry.outbox_pending(TOPIC, 10)
    assert "must be active, got deleted" in left.message
    client.restore_experiment(experiment.experiment_id)
    assert later.finish() == 0
    assert len(runs_of(client)[1]) == 2


def test_server_is_left_alone_for_a_while_when_it_is_slow(listener, registry, make_record):
    listener.warm_up()
    readings = iter(range(0, 10_000, 6))
    slow = MlflowListener(
        registry,
        tracking_uri=listener._tracking_uri,
        artifact_root=listener._artifact_root,
        drain_s=0,
        clock=lambda: float(next(readings)),  # six seconds pass between any two looks at the clock
    )
    for number in range(3):
        slow.on_trial(TrialFinished(run_key=RUN, phase="search", record=make_record(number), budget_s=1))
    assert slow.drain(1000) == 1
    assert slow.drain(1000) == 0
    assert len(registry.outbox_pending(TOPIC, 10)) == 2


def test_twin_of_a_run_that_two_processes_created_at_once_is_removed(listener, client, make_record):
    record = make_record(1)
    listener.warm_up()
    experiment = client.create_experiment("forest_gaps")
    writer = listener._writer
    ours = [client.create_run(experiment, tags={"autotune.trial_key": record.key}) for _ in range(2)]
    kept = writer._one_of(ours)
    assert kept.info.run_id == min(run.info.run_id for run in ours)
    assert [run.info.run_id for run in client.search_runs([experiment])] == [kept.info.run_id]


def test_nothing_is_printed_and_nothing_left_in_environment_or_loggers(tmp_path):
    program = """
import logging, os, sys
from pathlib import Path
before, home = dict(os.environ), Path(sys.argv[1])
from autotune.registry import open_registry
open_registry(home).close()
logging.basicConfig(level=logging.INFO)
from autotune.spec import StudySpec, StudyStarted
from autotune.tracking.mlflow_listener import MlflowListener, default_tracking_uri
assert "mlflow" not in sys.modules and "plotly" not in sys.modules
with open_registry(home) as registry:
    listener = MlflowListener(registry, tracking_uri=default_tracking_uri(home), artifact_root=home / "art")
    spec = StudySpec(name="s", dataset="a:b", budget="1s")
    listener.on_start(StudyStarted(run_key="r", spec=spec))
    listener.warm_up()
    assert listener.drain(30) == 1 and listener.finish() == 0
assert dict(os.environ) == before
assert "mlflow.pyfunc" not in sys.modules
print(logging.getLogger("mlflow").level, logging.getLogger("alembic").level)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "home")], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 2
    assert done.stderr == ""


def test_settings_of_the_user_win_and_ours_are_taken_back():
    environ = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
    with quiet_mlflow(environ):
        inside = dict(environ)
    assert inside["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "60"
    assert inside["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert environ == {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}


def test_rows_are_kept_with_one_line_when_mlflow_is_not_installed(tmp_path):
    import yaml

    installed = tmp_path / "site-packages"
    installed.mkdir()
    for entry in Path(yaml.__file__).parents[1].iterdir():
        if "mlflow" not in entry.name.lower() and entry.suffix != ".pth":
            (installed / entry.name).symlink_to(entry)
    (tmp_path / "mlflow").mkdir()  # a plain folder that can be imported
    program = """
import logging, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO)
import mlflow
from autotune.registry import open_registry
from autotune.spec import StudySpec, StudyStarted
from autotune.tracking.mlflow_client import mlflow_installed
from autotune.tracking.mlflow_listener import MlflowListener, TOPIC
assert not mlflow_installed()
with open_registry(Path("home")) as registry:
    listener = MlflowListener(registry, tracking_uri="sqlite:///mlflow.db")
    listener.warm_up()
    listener.on_start(StudyStarted(run_key="r", spec=StudySpec(name="s", dataset="a:b", budget="1s")))
    assert listener.drain(5) == 0 and listener.finish() == 1
    print(len(registry.outbox_pending(TOPIC, 10)))
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}:{root}:{installed}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1"
    assert done.stderr.count("MLflow is not installed") == 1
    assert mlflow_installed()


@contextmanager
def mlflow_server(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir()
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1",
    ]  # fmt: skip
    environ = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environ)
        try:
            uri = f"http://127.0.0.1:{port}"
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{uri}/health", timeout=1)
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text()
                    time.sleep(0.2)
            yield uri
        finally:
            server.terminate()
            server.wait(30)


@pytest.mark.slow
def test_study_is_told_to_a_real_server_without_a_word_on_standard_output(tmp_path, registry, play, capfd):
    from mlflow.tracking import MlflowClient

    with mlflow_server(tmp_path / "server") as uri:
        unused = tmp_path / "unused"
        listener = MlflowListener(registry, tracking_uri=uri, artifact_root=unused, evidence=registry)
        records = play(listener)
        assert listener.finish() == 0
        parent, children = runs_of(MlflowClient(tracking_uri=uri))
        assert set(children) == {record.key for record in records}
        assert artifact(MlflowClient(tracking_uri=uri), parent, "champion.json")
    assert not unused.exists()
    assert capfd.readouterr().out == ""
