"""An archive built by the nodes of a real Ray cluster, of which one is killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autotune.data.archives.shard_listing import list_unfinished
from autotune.data.archives.store import open_or_build
from autotune.data.facts import samples_equal
from autotune.spec import LoaderConfig

pytest.importorskip("ray", reason="the extra ray is not installed")

from ray_clusters import ray_cluster
from trial_datasets import SlowKnown

pytestmark = [pytest.mark.fault, pytest.mark.long]

SUPPORT = Path(__file__).resolve().parent.parent / "support"
COUNT = 600
STUDY = f"""\
name: stored
dataset: {{factory: "trial_datasets:SlowKnown", arguments: {{count: {COUNT}, sleep_ms: 40}}}}
budget: 10s
"""
MAIN = "from autotune.cli import main; main()"
WITHIN_S = 200


def builders(home):
    """Give the commands that build on nodes for this home."""
    found = []
    for process in psutil.process_iter():
        try:
            if "die_with_parent" in " ".join(process.cmdline()) and process.environ().get("AUTOTUNE_HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(condition, what):
    end = time.monotonic() + WITHIN_S
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Give a function that begins to build over a cluster whose nodes share a home."""
    paths = [str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("AUTOTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AUTOTUNE_LOCK", str(tmp_path / "machine.lock"))
    (tmp_path / "study.yaml").write_text(STUDY)
    words = ["archive", "build", str(tmp_path / "study.yaml"), "--format", "webdataset", "--stored", "decoded",
             "--shard-size", "20", "--workers", "0", "--json"]  # fmt: skip

    def begin(address):
        command = [sys.executable, "-c", MAIN, *words, "--ray", address]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)

    return begin


@pytest.mark.fault(24)
def test_what_a_killed_node_had_in_hand_is_built_by_the_others(build, tmp_path):
    home = tmp_path / "home"
    with ray_cluster(3) as cluster:
        begun = build(cluster.address)
        until(lambda: len(builders(home)) == 3 and list_unfinished(home / "archives"), "three builders at work")
        cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
        until(lambda: len(builders(home)) == 2, "the end of the killed node's builder")
        out, errors = begun.communicate(timeout=WITHIN_S)
    assert begun.returncode == 1, errors  # one node has none, as far as the command can tell
    nodes = json.loads(out)["nodes"]
    assert [one["failure"] is None for one in nodes].count(True) == 2, nodes
    (lost,) = [one for one in nodes if one["failure"]]
    assert "it was lost" in lost["failure"]
    assert {one["samples"] for one in nodes if not one["failure"]} == {COUNT}
    known = SlowKnown(COUNT, sleep_ms=0)
    config = LoaderConfig(archive="webdataset", stored="decoded")
    opened = open_or_build(known, config, home / "archives", build=False)
    assert samples_equal([opened.dataset[i] for i in range(COUNT)], [known[i] for i in range(COUNT)])


def test_nobody_builds_on_when_the_command_is_killed(build, tmp_path):
    home = tmp_path / "home"
    with ray_cluster(2) as cluster:
        begun = build(cluster.address)
        until(lambda: len(builders(home)) == 2 and list_unfinished(home / "archives"), "two builders at work")
        begun.kill()
        begun.communicate()
        until(lambda: not builders(home), "the end of all builders")
    (left,) = list_unfinished(home / "archives")
    assert left.idle
    assert left.finished < left.shards
