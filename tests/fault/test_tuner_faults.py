"""The tuner itself is killed in mid-trial, and started twice."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import TrialState
from waiting import until

from autotune.errors import AutotuneError
from autotune.registry import open_existing
from autotune.study.optuna_store import KEY
from autotune.study.search import RESULT

pytestmark = [pytest.mark.fault, pytest.mark.slow]

SUPPORT = Path(__file__).resolve().parent.parent / "support"
STUDY = """\
name: killed
dataset: {factory: "trial_datasets:Plain", arguments: {count: 64, work_ms: 0.2}}
device: cpu
budget: {time: 5s, trials: 5}
space: {batch_size: [8, 16], num_workers: [0, 1], prefetch_factor: 2, cache: none, archive: files}
time_cap_s: 0.5
confirm_time_cap_s: 0.2
"""
WITHIN_S = 90


@dataclass
class Killed:
    """What was there when the tuner was killed, and right after."""

    home: Path
    temporary: Path
    pid: int
    second: subprocess.CompletedProcess
    records: list
    running: list
    survivors: list


def command(folder, *further):
    return [sys.executable, "-c", "from autotune.cli import main; main()", "tune", str(folder / "study.yaml"), *further]


def environ(folder):
    paths = [str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    ours = {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(folder / "tmp"), "AUTOTUNE_HOME": str(folder / "home")}
    ours["AUTOTUNE_LOCK"] = str(folder / "tmp" / "autotune-machine.lock")
    return {**kept, **ours, "COLUMNS": "200", "NO_COLOR": "1"}


def records_of(home):
    with open_existing(home) as registry:
        return registry.records("killed")


def saved(home, count):
    """Give the records once there are so many; the registry may not even be there yet."""
    try:
        found = records_of(home)
    except AutotuneError:
        return []
    return found if len(found) >= count else []


def trial_processes(pid):
    """Give the tuner's server and the trials below it, once a trial is alive."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            below = child.children(recursive=True) if "autotune.trial.server" in " ".join(child.cmdline()) else []
            if below:
                return [child, *below]
    return []


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A tuner that was killed in its third trial, while a second one was refused."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "tmp").mkdir()
    (folder / "study.yaml").write_text(STUDY)
    home = folder / "home"
    with subprocess.Popen(
        command(folder), env=environ(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as tuner:
        until(lambda: trial_processes(tuner.pid), "the first process", within_s=WITHIN_S)
        second = subprocess.run(command(folder), env=environ(folder), capture_output=True, text=True, check=False)
        until(lambda: saved(home, 2), "two records", within_s=WITHIN_S)
        processes = until(lambda: trial_processes(tuner.pid), "a trial in progress", within_s=WITHIN_S)
        tuner.send_signal(signal.SIGKILL)
        tuner.wait()
    records = records_of(home)
    running = [trial for trial in optuna_trials(home) if trial.state == TrialState.RUNNING]
    _, survivors = psutil.wait_procs(processes, timeout=20)
    for process in survivors:
        process.kill()
    return Killed(home, folder / "tmp", tuner.pid, second, records, running, survivors)


@pytest.fixture(scope="module")
def resumed(killed):
    """The same command again."""
    folder = killed.home.parent
    run = subprocess.run(
        command(folder, "--json"), env=environ(folder), capture_output=True, text=True, timeout=240, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run


def optuna_trials(home):
    storage = f"sqlite:///{home / 'optuna.db'}"
    return optuna.load_study(study_name="killed", storage=storage).get_trials()


@pytest.mark.fault(13)
def test_a_second_tuner_exits_4_naming_the_first(killed):
    assert killed.second.returncode == 4
    assert f"process {killed.pid} (study killed" in killed.second.stderr
    assert killed.second.stdout == ""


@pytest.mark.fault(4)
def test_server_and_trials_end_by_themselves_when_the_tuner_is_killed(killed):
    assert killed.survivors == []


@pytest.mark.fault(4)
def test_the_killed_trial_leaves_no_folder_for_temporary_files(killed):
    assert list(killed.temporary.glob("autotune-trial-*")) == []


@pytest.mark.fault(4)
def test_finished_trials_are_kept_and_none_stays_running(killed, resumed):
    assert len(killed.records) >= 2
    assert len(killed.running) == 1, "the tuner was not killed in mid-trial"
    after = {record.key: record for record in records_of(killed.home)}
    assert [after.get(record.key) for record in killed.records] == killed.records
    trials = optuna_trials(killed.home)
    assert TrialState.RUNNING not in {trial.state for trial in trials}
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert len([trial for trial in failed if RESULT not in trial.user_attrs]) == 1, "only one was left in its middle"
    searched = [record.config for record in after.values() if record.phase == "search"]
    assert len(searched) == len(set(searched)), "a finished trial was measured again"


@pytest.mark.fault(4)
def test_every_trial_that_optuna_knows_as_complete_has_its_record(killed, resumed):
    keys = {record.key for record in records_of(killed.home)}
    complete = [trial for trial in optuna_trials(killed.home) if trial.state == TrialState.COMPLETE]
    assert {trial.user_attrs[KEY] for trial in complete if KEY in trial.user_attrs} <= keys


@pytest.mark.fault(5)
def test_mlflow_has_exactly_one_run_for_each_trial_and_one_for_the_study(killed, resumed):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{killed.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("killed")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    told = sorted(run.data.tags["autotune.trial_key"] for run in runs if run.data.tags["autotune.role"] == "trial")
    assert told == sorted(record.key for record in records_of(killed.home))
    studies = [run for run in runs if run.data.tags["autotune.role"] == "study"]
    assert [run.info.status for run in studies] == ["FINISHED"]


@pytest.mark.fault(4)
def test_the_resumed_run_leaves_no_process_and_no_lock(killed, resumed):
    assert not list(killed.temporary.glob("*.holder"))
    mine = [process for process in psutil.process_iter(["cmdline"]) if str(killed.home) in str(process.info["cmdline"])]
    assert mine == []
