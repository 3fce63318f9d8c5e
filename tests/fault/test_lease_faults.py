"""Holders of a machine that freeze, die or meet at once, and clocks that jump."""

import os
import signal
import subprocess
import sys
import time

import jumping_clock
import pytest
from limited_machine import trials_under
from registry_values import decision, record
from sqlalchemy import text
from trial_requests import trial_request

from autotune.errors import LeaseLostError, MachineBusyError
from autotune.processes import identity, is_gone
from autotune.registry import lease_rows, open_existing, open_registry

pytestmark = pytest.mark.fault

NO_COMPILER = pytest.mark.skipif(jumping_clock.why_not() is not None, reason=str(jumping_clock.why_not()))
WITHIN_S = 60
HOLDER = """
import sys; sys.path[:0] = sys.argv[4:]
import os, time
from pathlib import Path
from registry_values import decision, record
from autotune.errors import LeaseLostError
from autotune.processes import identity
from autotune.registry import lease_rows, open_registry
lease_rows._LIFE_US = int(float(sys.argv[3]) * 1e6)
at = (Path(sys.argv[1]), sys.argv[2] or None)
with open_registry(*at) as registry:
    lease = registry.acquire_lease("node", holder=f"process {os.getpid()}", purpose="a test", process=identity())
with open_registry(*at, fences=[lease]) as registry:
    registry.save_record(record("early"))
    print("held", flush=True)
    sys.stdin.readline()
    for work in (lambda: registry.save_record(record("late")), lambda: registry.save_decision(decision()),
                 lambda: registry.renew_lease(lease)):
        try:
            work()
            print("written", flush=True)
        except LeaseLostError as error:
            print("refused", error, flush=True)
"""


def holding(address, *, life_s, environ=None):
    home, url = address
    command = [sys.executable, "-c", HOLDER, str(home), url or "", str(life_s), *sys.path]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ, bufsize=1
    )
    assert process.stdout.readline() == "held\n"
    return process


def answers(process):
    process.stdin.write("\n")
    process.stdin.flush()
    told = process.stdout.read().splitlines()
    assert process.wait(WITHIN_S) == 0
    return told


def until_free(registry, *, within_s=WITHIN_S, **settings):
    end = time.monotonic() + within_s
    while True:
        try:
            return registry.acquire_lease("node", holder="me", purpose="the next night", **settings)
        except MachineBusyError:
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.mark.fault(14)
def test_the_late_write_of_a_holder_that_was_frozen_past_expiry_is_refused(address):
    process = holding(address, life_s=2)
    os.kill(process.pid, signal.SIGSTOP)
    with open_registry(*address) as registry:
        with pytest.raises(MachineBusyError, match=rf"process {process.pid} \(a test\)"):
            registry.acquire_lease("node", holder="me", purpose="too early")
        lease = until_free(registry)
        os.kill(process.pid, signal.SIGCONT)
        told = answers(process)
        assert [line.split()[0] for line in told] == ["refused"] * 3
        assert "me has it since" in told[0]
        assert [one.key for one in registry.records("s")] == ["early"]
        assert registry.decisions() == []
        assert lease.token > 1
    with open_registry(*address, fences=[lease]) as mine:
        mine.save_record(record("mine"))
        assert mine.record("mine") is not None


@pytest.mark.fault(14)
@pytest.mark.long
def test_the_late_write_is_refused_even_where_nobody_has_taken_the_lease(address):
    process = holding(address, life_s=1)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(process.pid, signal.SIGCONT)
    told = answers(process)
    assert [line.split()[0] for line in told] == ["refused"] * 3
    assert "not renewed in time" in told[0]


@pytest.mark.fault(14)
def test_a_killed_holder_of_this_machine_is_followed_at_once_and_one_elsewhere_when_its_lease_ends(address):
    process = holding(address, life_s=3)
    process.kill()
    process.wait()
    with open_registry(*address) as registry:
        with pytest.raises(MachineBusyError):
            registry.acquire_lease("node", holder="me", purpose="p")
        first = registry.acquire_lease("node", holder="me", purpose="p", process="here", is_gone=is_gone)
        registry.release_lease(first)
        second = until_free(registry, within_s=1)
        assert second.token == first.token + 1


def test_a_lease_that_is_renewed_outlives_its_life_and_one_that_is_let_go_is_free(address, monkeypatch):
    monkeypatch.setattr(lease_rows, "_LIFE_US", 1_000_000)
    with open_registry(*address) as registry:
        lease = registry.acquire_lease("node", holder="me", purpose="p")
        for _ in range(4):
            time.sleep(0.4)
            lease = registry.renew_lease(lease)
        with pytest.raises(MachineBusyError):
            registry.acquire_lease("node", holder="you", purpose="p")
        assert [one.holder for one in registry.leases()] == ["me"]
        registry.release_lease(lease)
        assert registry.leases() == []
        with pytest.raises(LeaseLostError):
            registry.renew_lease(lease)
        assert registry.acquire_lease("node", holder="you", purpose="p").token == lease.token + 1


@pytest.mark.fault(15)
def test_a_lease_outlives_a_clock_of_the_server_that_steps_back_and_not_another_boot(address):
    with open_registry(*address) as registry:
        lease = registry.acquire_lease("node", holder="me", purpose="p", process="mine")
        later = text("UPDATE leases SET expires_us = expires_us + 60000000")  # as seen a minute further back
        registry._write(lambda connection: connection.execute(later) and None)
        if address[1] is None:  # the monotonic clock goes back only where the machine was started anew
            assert registry.leases() == []
            assert registry.acquire_lease("node", holder="you", purpose="p").token == lease.token + 1
            return
        with pytest.raises(MachineBusyError):
            registry.acquire_lease("node", holder="you", purpose="p")
        assert [one.holder for one in registry.leases()] == ["me"]
        assert registry.renew_lease(lease).token == lease.token


@pytest.mark.fault(13)
def test_of_many_that_come_at_once_one_holds_the_machine(address):
    open_registry(*address).close()
    script = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "from pathlib import Path; from autotune.registry import open_registry; from autotune.errors import *\n"
        "registry = open_registry(Path(sys.argv[1]), sys.argv[2] or None)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try: registry.acquire_lease('node', holder='x', purpose='p'); print('held')\n"
        "except MachineBusyError: print('busy')\n"
    )
    command = [sys.executable, "-c", script, str(address[0]), address[1] or "", *sys.path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racing = [subprocess.Popen(command, **pipes) for _ in range(4)]
    assert all(process.stdout.readline() == "ready\n" for process in racing)
    told = [process.communicate("\n", timeout=WITHIN_S)[0].strip() for process in racing]
    assert sorted(told) == ["busy", "busy", "busy", "held"]


def test_a_number_of_another_process_names_nobody():
    mine = identity()
    assert not is_gone(mine)
    assert not is_gone("")
    assert not is_gone("of another machine, and no identity")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        other = identity(child.pid)
        assert not is_gone(other)
        child.communicate(b"\n")
    assert is_gone(other)
    boot, namespace, number, started = mine.split(" ")
    assert is_gone(f"{boot} {namespace} {number} {int(started) + 1}")
    assert not is_gone(f"{boot} pid:[1] 1 1")
    assert not is_gone(f"another-boot {namespace} {number} {int(started) + 1}")


@pytest.mark.fault(15)
@NO_COMPILER
@pytest.mark.parametrize("jump_s", [3600, pytest.param(-3600, marks=pytest.mark.long)])
def test_a_jump_of_the_wall_clock_neither_ends_a_lease_nor_keeps_it(address, tmp_path, jump_s):
    environ = jumping_clock.jumping(tmp_path)
    process = holding(address, life_s=30, environ=environ)
    (tmp_path / "jump").write_text(str(jump_s))
    with open_registry(*address) as registry:
        with pytest.raises(MachineBusyError):
            registry.acquire_lease("node", holder="me", purpose="p")
        assert answers(process) == ["written"] * 3
        with pytest.raises(MachineBusyError):
            registry.acquire_lease("node", holder="me", purpose="p")
    jumped = holding(address_of_its_own(address, tmp_path), life_s=1.0, environ=environ)
    with open_registry(*address_of_its_own(address, tmp_path)) as registry:
        until_free(registry, within_s=10)
        assert [line.split()[0] for line in answers(jumped)] == ["refused"] * 3


def address_of_its_own(address, tmp_path):
    return (
        (tmp_path / "second", None)
        if address[1] is None
        else (tmp_path, address[1] + "?options=-csearch_path%3Dsecond")
    )


def test_reading_needs_no_lease(address):
    with open_registry(*address) as registry:
        registry.save_decision(decision())
        registry.acquire_lease("node", holder="me", purpose="p")
    with open_existing(*address) as registry:
        assert len(registry.decisions()) == 1


@NO_COMPILER
@pytest.mark.fault(15)
@pytest.mark.parametrize("jump_s", [3600, pytest.param(-3600, marks=pytest.mark.long)])
def test_durations_of_a_trial_take_no_notice_of_a_wall_clock_that_jumps_in_its_middle(tmp_path, jump_s):
    environ = jumping_clock.jumping(tmp_path)
    settings = {"path": environ["CLOCK_JUMP_FILE"], "seconds": jump_s, "count": 256}
    request = trial_request(tmp_path, "JumpsClock", settings, config={"num_workers": 1}, time_cap_s=1.0)
    preloaded = f"export LD_PRELOAD={environ['LD_PRELOAD']} CLOCK_JUMP_FILE={environ['CLOCK_JUMP_FILE']}"
    (jumped,) = trials_under(preloaded, [("run", request)], folder=tmp_path).answers
    assert (tmp_path / "jump").read_text() == str(jump_s)
    assert jumped.failure is None
    measured, phases = jumped.measurement, jumped.measurement.phases
    durations = [jumped.wall_s, measured.wait_p95_s, phases.build_s, phases.first_batch_s, phases.measured_s]
    durations += [window.seconds for window in measured.windows]
    assert all(0 <= duration < abs(jump_s) / 10 for duration in durations), durations
    assert measured.samples_per_s > 64 / 60
