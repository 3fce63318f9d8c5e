"""A database that hangs, or whose disk is full: bounded waits, clear errors, and the old best still served."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import postgresql_server
import psutil
import pytest
from registry_values import Numbers, decision_here, record

from autotune.errors import RegistryError
from autotune.registry import open_registry, postgresql
from autotune.resolve.best import best_config
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import LoaderConfig

pytestmark = pytest.mark.fault
NO_SERVER = pytest.mark.skipif(postgresql_server.why_not() is not None, reason=str(postgresql_server.why_not()))


@contextmanager
def stopped(server):
    """Stop every process of a server, which still acknowledges packets then."""
    postmaster = int((server.data / "postmaster.pid").read_text().split()[0])
    processes = [psutil.Process(postmaster), *psutil.Process(postmaster).children()]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


@pytest.mark.fault(7)
@NO_SERVER
def test_a_server_that_does_not_answer_is_given_up_and_nothing_is_written_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(postgresql, "ANSWER_S", 1.0)
    monkeypatch.setattr(postgresql, "READ_ANSWER_S", 0.5)
    with postgresql_server.running_server() as server:
        url = server.new_database("hangs")
        dataset = Numbers()
        with open_registry(tmp_path, url, wait_s=2) as registry:
            registry.save_record(record("before"))
            registry.save_decision(decision_here(dataset, LoaderConfig(num_workers=1)))
            with stopped(server):
                with pytest.raises(RegistryError, match="cannot be reached"):
                    registry.save_record(record("during"), outbox=[("mlflow", "during", "{}")])
                with pytest.warns(AutotuneWarning, match="registry"):
                    found = best_config(dataset, home=tmp_path, environ={"AUTOTUNE_STORAGE": url})
                assert found.match == "default"
            registry.save_record(record("during"), outbox=[("mlflow", "during", "{}")])
            registry.save_record(record("during"), outbox=[("mlflow", "during", "{}")])
            assert sorted(one.key for one in registry.records("s")) == ["before", "during"]
            assert len(registry.outbox_pending("mlflow")) == 1
        assert best_config(dataset, home=tmp_path, environ={"AUTOTUNE_STORAGE": url}).match == "exact"


DROPPING = """
import json, subprocess, sys, time
sys.path[:0] = sys.argv[2:]
import postgresql_server
from pathlib import Path
from registry_values import record
from autotune.errors import LeaseLostError, RegistryError
from autotune.registry import lease_rows, open_registry

lease_rows._LIFE_US = 3_000_000
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
def told(work):
    try:
        work()
        return "written"
    except LeaseLostError as error:
        return f"lost: {error}"
    except RegistryError as error:
        return f"error: {error}"

with postgresql_server.running_server() as server:
    at = (Path(sys.argv[1]), server.new_database("drops"))
    with open_registry(*at, wait_s=5) as registry:
        lease = registry.acquire_lease("node", holder="me", purpose="a test")
        with open_registry(*at, wait_s=5, fences=[lease]) as mine:
            found = {"before": told(lambda: mine.save_record(record("before")))}
            subprocess.run("tc qdisc add dev lo root pfifo limit 0".split(), check=True)
            found["during"] = told(lambda: mine.save_record(record("during")))
            subprocess.run("tc qdisc del dev lo root".split(), check=True)
            found["after"] = told(lambda: mine.save_record(record("after")))
        registry.save_record(record("unfenced"))
        found["kept"] = sorted(one.key for one in registry.records("s"))
print(json.dumps(found))
"""


@pytest.mark.fault(7)
@NO_SERVER
@pytest.mark.slow
def test_dropped_packets_end_in_a_clear_error_and_the_lease_is_lost_safely(tmp_path):
    if os.geteuid() or not all(map(shutil.which, ("unshare", "ip", "tc"))):
        pytest.skip("packets are dropped in a network of our own, which takes root, unshare, ip and tc")
    command = ["unshare", "-n", sys.executable, "-c", DROPPING, str(tmp_path), *sys.path]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if run.returncode and ("unshare:" in run.stderr or "RTNETLINK" in run.stderr):
        pytest.skip(f"the kernel forbids a network of our own: {run.stderr.strip().splitlines()[-1]}")
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    assert found["before"] == "written"
    assert found["during"].startswith("error: the registry postgresql://")
    assert "cannot be reached" in found["during"]
    assert found["after"].startswith("lost: the lease of node (a test) is lost")
    assert found["kept"] == ["before", "unfenced"]


@pytest.mark.fault(6)
@NO_SERVER
@pytest.mark.slow
def test_a_measurement_is_kept_and_written_once_when_postgresql_is_away_for_a_minute(tmp_path):
    with postgresql_server.running_server() as server:
        url = server.new_database("outage")
        with open_registry(tmp_path, url) as registry:
            registry.save_record(record("before"))
            server.stop()
            back = threading.Timer(60.0, server.start)
            back.start()
            registry.save_record(record("during"), outbox=[("mlflow", "during", "{}")])
            back.join()
            assert sorted(one.key for one in registry.records("s")) == ["before", "during"]
            assert len(registry.outbox_pending("mlflow")) == 1


FILLING = """
import sys; sys.path[:0] = sys.argv[2:]
import json
from pathlib import Path
from registry_values import Numbers, decision, decision_here, record
from autotune.errors import RegistryError
from autotune.registry import open_registry
from autotune.resolve.best import best_config
from autotune.spec import LoaderConfig

home, dataset = Path(sys.argv[1]) / "home", Numbers()
config = LoaderConfig(num_workers=1).canonical(has_accelerator=False)
found = {}
with open_registry(home, wait_s=1) as registry:
    registry.save_decision(decision_here(dataset, config))
    with open(Path(sys.argv[1]) / "filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    saved = 0
    try:
        while saved < 10_000:
            registry.save_record(record(f"k{saved}", study="s" * 90))
            saved += 1
    except RegistryError as error:
        found["message"] = str(error)
    found |= {"saved": saved, "rows": len(registry.records("s" * 90))}
found["match"] = best_config(dataset, home=home).match
found["workers"] = best_config(dataset, home=home).config.num_workers
(Path(sys.argv[1]) / "filler").unlink()
with open_registry(home) as registry:
    registry.save_record(record("later"))
    found["later"] = registry.record("later") is not None
print(json.dumps(found))
"""


@pytest.mark.fault(11)
def test_a_full_disk_under_the_registry_is_said_loudly_and_the_old_best_is_still_served(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = 'mount -t tmpfs -o size=8m tmpfs "$1" && shift && exec "$@"'
    inside = [sys.executable, "-c", FILLING, str(disk), *sys.path]
    command = ["unshare", "-rm", "sh", "-c", mounted, "sh", str(disk), *inside]
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare(1), so no small disk can be mounted")
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if run.returncode and ("unshare:" in run.stderr or "mount:" in run.stderr):
        pytest.skip(f"the kernel forbids a mount namespace of our own: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    assert "no space is left for the registry" in found["message"]
    assert found["rows"] == found["saved"]
    assert (found["match"], found["workers"]) == ("exact", 1)
    assert found["later"]
