"""A study on several machines from the command line: `autotune tune --shared` and `autotune worker`."""

import json
import os
import shutil
import subprocess
import sys

import postgresql_server
import pytest
from shared_workers import SUPPORT, until, write_study

from autotune.registry import open_registry

pytestmark = pytest.mark.long

WITHIN_S = 240
AUTOTUNE = [sys.executable, "-c", "from autotune.cli import main; main()"]


def environ_of(folder, url):
    folder.mkdir(exist_ok=True)
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | {
        "AUTOTUNE_STORAGE": url,
        "AUTOTUNE_HOME": str(folder / "home"),
        "AUTOTUNE_LOCK": str(folder / "machine.lock"),
        "PYTHONPATH": os.pathsep.join([str(SUPPORT.parent.parent), str(SUPPORT)]),
    }


def started(words, environ, wrapper=()):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*wrapper, *AUTOTUNE, *map(str, words)], env=environ, stdin=subprocess.DEVNULL, **pipes)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2 or shutil.which("taskset") is None, reason="needs two CPUs")
def test_machines_of_two_classes_decide_a_study_each_in_one_run_that_one_driver_leads(tmp_path):
    reason = postgresql_server.why_not()
    if reason:
        pytest.skip(reason)
    study = write_study(tmp_path, budget="5s", trials=3)
    with postgresql_server.running_server() as server:
        url = server.new_database("classes")
        folders = [tmp_path / name for name in ("driver", "large", "small", "second")]
        environs = [environ_of(folder, url) for folder in folders]
        working = ["worker", "--study", "shared", "--studies", study, "--json"]
        # the driver alone would be done before a machine of another class has joined
        workers = [
            started(working, environs[1]),
            started(working, environs[2], ["taskset", "-c", str(min(os.sched_getaffinity(0)))]),
        ]
        driver = started(["tune", study, "--shared", "--no-measure", "--json"], environs[0])
        with open_registry(tmp_path, url) as registry:
            until(lambda: (shared := registry.shared_study("shared")) is not None and shared.driven, WITHIN_S)
        second = subprocess.run(
            [*AUTOTUNE, "tune", str(study), "--shared", "--no-measure"], env=environs[3], capture_output=True,
            text=True, timeout=WITHIN_S, check=False,
        )  # fmt: skip
        assert second.returncode == 4
        assert f"process {driver.pid}" in second.stderr
        told, errors = driver.communicate(timeout=WITHIN_S)
        assert driver.returncode == 0, errors[-3000:]
        ended = [worker.communicate(timeout=WITHIN_S) for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0], ended
    document = json.loads(told)
    assert document["study"] == "shared"
    found = {one["machine_class"]: one for one in document["classes"]}
    reports = [json.loads(out) for out, _ in ended]
    assert found.keys() == {report["machine_class"] for report in reports}
    assert len(found) == 2
    assert [report["end"] for report in reports] == ["decided", "decided"]
    assert all(report["trials"] >= found[report["machine_class"]]["trials"]["complete"] > 0 for report in reports)
