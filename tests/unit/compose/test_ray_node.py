"""What runs on a node of a Ray cluster, and what is said where there is none; nothing of Ray itself is needed."""

import sys
from pathlib import Path

import psutil
import pytest
from trial_requests import trial_request

from autotune import __version__
from autotune.compose.ray_node import NodeMachine
from autotune.errors import MissingExtraError, NoMachineError, SpecError
from autotune.spec import Failure
from autotune.trial.ray import RayCluster
from autotune.trial.ray_messages import NodeAnswer, NodeOrder


@pytest.fixture
def order(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_LOCK", str(tmp_path / "machine.lock"))
    fields = {"version": __version__, "purpose": "study s", "folder": str(tmp_path), "home": str(tmp_path / "home")}
    monkeypatch.chdir(tmp_path)
    return NodeOrder(**fields)


def begun(node, order, payload=None):
    return NodeAnswer.from_json(node.begin(order.to_json(), payload))


def test_a_node_with_another_version_refuses(order):
    answer = begun(NodeMachine(), order.replace(version="0.0.1"))
    assert answer.refusal == (f"it has autotune {__version__}, the driver 0.0.1; install the same version on both")


def test_one_job_holds_a_machine_and_emulated_nodes_are_machines_of_their_own(order):
    holder = NodeMachine()
    assert begun(holder, order) == NodeAnswer()
    assert "study s" in begun(NodeMachine(), order).busy
    emulated = NodeMachine()
    assert begun(emulated, order.replace(emulated_node="aa")) == NodeAnswer()
    assert begun(NodeMachine(), order.replace(emulated_node="bb")) == NodeAnswer()
    assert "study s" in begun(NodeMachine(), order.replace(emulated_node="aa")).busy


def test_objects_are_kept_in_a_private_file_until_the_node_leaves(order, tmp_path):
    node = NodeMachine()
    begun(node, order, b"pickled")
    (path,) = (tmp_path / "home").glob("payload-*.pkl")
    assert path.read_bytes() == b"pickled"
    assert path.stat().st_mode & 0o077 == 0
    node.leave()
    assert not path.exists()


def test_a_request_before_the_machine_is_held_is_refused(tmp_path):
    assert "before it held" in NodeAnswer.from_json(NodeMachine().measure(trial_request(tmp_path).to_json())).refusal


def test_a_node_takes_the_drivers_import_path_behind_its_own_as_far_as_it_has_it(order, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path.cwd())])
    (tmp_path / "there").mkdir()
    begun(NodeMachine(), order.replace(sys_path=(str(tmp_path / "there"), str(tmp_path / "elsewhere"))))
    assert sys.path == [str(tmp_path), str(tmp_path / "there")]


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"dataloader-autotune\[ray\]"):
        RayCluster("auto")


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        ("127.0.0.1:1", NoMachineError, "no Ray cluster answers at '127.0.0.1:1'"),
        ("localhost", SpecError, "auto or host:port, got 'localhost'"),
        ("ray://127.0.0.1:1", SpecError, "auto or host:port, got 'ray://127.0.0.1:1'"),
    ],
)
def test_a_cluster_that_is_not_there_is_an_error_at_once(address, error, said):
    pytest.importorskip("ray")
    with pytest.raises(error, match=said):
        RayCluster(address)


def test_the_number_of_threads_that_ray_sets_in_its_workers_is_not_that_of_trials(order, tmp_path, monkeypatch):
    node = NodeMachine()
    begun(node, order)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    node.inspect(trial_request(tmp_path).to_json())
    given = psutil.Process(node._runner._server.pid).environ()
    node._runner.close()
    assert "OMP_NUM_THREADS" not in given
    assert given["AUTOTUNE_LOCK"] == str(tmp_path / "machine.lock")


def test_an_emulated_node_says_so_in_its_records_and_does_not_watch_the_others(order, tmp_path):
    node = NodeMachine()
    begun(node, order.replace(emulated_node="aa"))
    request = trial_request(
        tmp_path, workload={"consumer": {"kind": "emulated", "step_ms": 1.0}}, config={"num_workers": 0}
    )
    record = NodeAnswer.from_json(node.measure(request.to_json())).record
    node._runner.close()
    assert not isinstance(record.failure, Failure)
    assert record.machine.host.endswith("/aa")
    assert record.machine.environment == "emulated"
    assert {window.cpu_by_others_share for window in record.measurement.windows} == {None}
