"""A real Ray cluster of several nodes, of which one is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import TrialState
from trial_requests import trial_request

from autotune.errors import MachineLostError, RegistryError
from autotune.registry import open_existing
from autotune.study.optuna_store import KEY

pytest.importorskip("ray", reason="the extra ray is not installed")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray_clusters import ray_cluster

from autotune import __version__
from autotune.compose import places
from autotune.compose.ray_classes import RayClasses
from autotune.compose.ray_node import NodeMachine
from autotune.spec.study_file import read_study
from autotune.trial import MachinePool
from autotune.trial.payload import pickled
from autotune.trial.ray import RayCluster
from autotune.trial.ray_messages import NodeOrder

pytestmark = [pytest.mark.fault, pytest.mark.long]

SUPPORT = Path(__file__).resolve().parent.parent / "support"
STUDY = """\
name: scattered
dataset: {factory: "trial_datasets:Plain", arguments: {count: 64, work_ms: 0.2}}
consumer: {emulated: {step_ms: 3}}
device: cpu
budget: {time: 12s, trials: 8}
space: {batch_size: [8, 16], num_workers: [0, 1], prefetch_factor: 2, cache: none, archive: [files, npy]}
time_cap_s: 0.5
confirm_time_cap_s: 0.5
"""
EMULATED = """
import sys
from contextlib import redirect_stdout
from pathlib import Path
from autotune.cli.output import error_console
from autotune.cli.tune_shared import SharedProgress, tell_classes
from autotune.compose import places, tune_on_ray
from autotune.spec.study_file import read_study

spec, told = read_study(Path(sys.argv[1])), SharedProgress(error_console())
with redirect_stdout(sys.stderr):
    ended = tune_on_ray(spec, sys.argv[2], at=places(), listener=told, emulated=True)
tell_classes(ended, as_json=True)
"""
WITHIN_S = 200


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Give a folder whose home and lock are those of all nodes and drivers that start now."""
    paths = [str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("AUTOTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AUTOTUNE_LOCK", str(tmp_path / "machine.lock"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def until(condition, what):
    end = time.monotonic() + WITHIN_S
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def servers():
    """Give the trial servers of all nodes of this host that this test may have started."""
    home = os.environ["AUTOTUNE_LOCK"]
    found = []
    for process in psutil.process_iter():
        try:
            if "autotune.trial.server" in " ".join(process.cmdline()) and process.environ()["AUTOTUNE_LOCK"] == home:
                found.append(process)
        except (psutil.Error, KeyError):
            continue
    return found


def test_what_a_killed_node_measured_is_measured_on_another(place):
    with ray_cluster(3) as cluster, closing(RayCluster(cluster.address)) as connected:
        nodes = {node.node_id: node for node in connected.nodes()}
        assert len({node.address for node in nodes.values()}) == 1
        machines = {node_id: connected.start(node, NodeMachine) for node_id, node in nodes.items()}
        for node_id, machine in machines.items():
            told = NodeOrder(version=__version__, purpose="test", folder=str(place), emulated_node=node_id[:8])
            machine.begin(told, pickled({}))
        killed = next(iter(cluster.worker_nodes))
        with closing(MachinePool(machines.values(), wait_s=30.0)) as pool:
            requests = [trial_request(place, time_cap_s=1.0) for _ in range(7)]
            futures = [pool.submit([request]) for request in requests]
            until(lambda: len(servers()) == 3, "a trial on every node")
            until(lambda: not ray.available_resources().get("CPU"), "all CPUs to be reserved")
            assert not [server for server in servers() if "OMP_NUM_THREADS" in server.environ()]
            cluster.remove_node(killed, allow_graceful=False)
            records = [future.result(WITHIN_S)[0] for future in futures]
            assert pool.capacity == 2
        assert [record.key for record in records] == [request.key for request in requests]
        assert [record.failure for record in records] == [None] * 7
        hosts = {record.machine.host.rpartition("/")[2] for record in records[3:]}
        assert hosts == {node_id[:8] for node_id in nodes} - {killed.node_id[:8]}
        until(lambda: not servers(), "the end of all trial servers")
        assert len(list((place / "home").glob("payload-*.pkl"))) <= 1, "only the killed node could not remove its own"


def test_nobody_waits_for_a_node_that_starts_once_it_is_closed_and_no_cluster_is_begun_to_close_one(place):
    told = NodeOrder(version=__version__, purpose="test", folder=str(place))
    with ray_cluster(1) as cluster, ThreadPoolExecutor(1) as threads:
        connected = RayCluster(cluster.address)
        (node,) = connected.nodes()
        first, second = (connected.start(node, NodeMachine) for _ in range(2))
        first.begin(told, None)
        begun = threads.submit(second.begin, told, None)  # the first one has all CPUs
        second.close()
        with pytest.raises(MachineLostError):
            begun.result(WITHIN_S)
        connected.close()
        first.close()
        assert not ray.is_initialized()


@dataclass
class Ended:
    """How a driver ended."""

    code: int
    out: str
    err: str


def driver(place, address):
    """Begin a driver for which each node is a machine."""
    (place / "study.yaml").write_text(STUDY)
    return begun(place, "-c", EMULATED, str(place / "study.yaml"), address)


def command(place, address, *further):
    """Begin the command, for which nodes of one host are one machine."""
    (place / "study.yaml").write_text(STUDY)
    main = "from autotune.cli import main; main()"
    return begun(place, "-c", main, "tune", str(place / "study.yaml"), "--ray", address, "--json", *further)


def begun(place, *words):
    command = [sys.executable, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place)


def ended(process):
    out, err = process.communicate(timeout=WITHIN_S)
    return Ended(process.returncode, out, err)


def records_of(home):
    try:
        with open_existing(home) as registry:
            return list(registry.records("scattered"))
    except RegistryError:  # the driver has not made it yet
        return []


def test_a_study_for_each_class_goes_on_when_a_node_is_killed(place):
    with ray_cluster(3, cpus=[{0}]) as cluster:
        process = driver(place, cluster.address)
        whole = [node for node in cluster.worker_nodes if node.node_id]
        until(lambda: len(records_of(place / "home")) >= 4, "the first trials")
        of_two = {record.machine.host for record in records_of(place / "home") if record.machine.cpu_count > 1}
        killed = next(node for node in whole if not of_two or any(node.node_id[:8] in host for host in of_two))
        cluster.remove_node(killed, allow_graceful=False)
        end = ended(process)
    assert end.code == 0, end.err
    classes = json.loads(end.out)["classes"]
    assert len({one["machine_class"] for one in classes}) == 2, end.err
    records = records_of(place / "home")
    assert len({record.key for record in records}) == len(records)
    storage = optuna.storages.RDBStorage(f"sqlite:///{place / 'home' / 'optuna.db'}")
    trials = [trial for study in optuna.get_all_study_summaries(storage) for trial in
              optuna.load_study(study_name=study.study_name, storage=storage).get_trials()]  # fmt: skip
    assert not [trial for trial in trials if trial.state == TrialState.RUNNING]
    told = [trial.user_attrs[KEY] for trial in trials if KEY in trial.user_attrs]
    assert sorted(told) == sorted(record.key for record in records if record.phase == "search")
    until(lambda: not servers(), "the end of all trial servers")


def test_one_node_of_a_host_measures_and_uses_the_home_that_the_driver_was_told(place):
    with ray_cluster(2) as cluster:
        end = ended(command(place, cluster.address, "--home", "own", "--trials", "3"))
    assert end.code == 0, end.err
    assert "is on the same host as node" in end.err
    (host,) = {record.machine.host for record in records_of(place / "own")}
    assert host == os.uname().nodename
    assert not (place / "home").exists()


@ray.remote
def _held(path):
    Path(path).touch()
    time.sleep(600)


def test_an_interrupt_while_nodes_are_looked_at_gives_back_those_that_were_taken_in(place):
    """As in a notebook, which has joined the cluster before and stays in it.

    One node is taken in; the other is waited for, as other work of Ray's has its CPUs.
    """
    study = place / "study.yaml"
    study.write_text(STUDY)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with ray_cluster(2) as cluster, _joined(cluster), closing(RayCluster(cluster.address)) as connected:
        busy = NodeAffinitySchedulingStrategy(connected.nodes()[1].node_id, soft=False)
        _held.options(scheduling_strategy=busy).remote(str(place / "held"))
        until((place / "held").exists, "other work on a node")
        classes = RayClasses(
            connected, read_study(study), at=places(), own_home=None, payload=None, awaited_s=5.0, emulated=True
        )

        def interrupt():
            until(lambda: classes.pools, "a node to be taken in")
            os.kill(os.getpid(), signal.SIGINT)

        with ThreadPoolExecutor(1) as threads:
            threads.submit(interrupt)
            with pytest.raises(KeyboardInterrupt):
                classes.__enter__()
        signal.signal(signal.SIGINT, before)
        until(lambda: ray.available_resources().get("CPU") == 1, "the CPUs of the node that was taken in")
        until(lambda: not servers(), "its trial server to end")


@contextmanager
def _joined(cluster):
    ray.init(address=cluster.address, namespace="notebook", log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
