"""Machines that measure for one study are cut off or killed: no trial is lost, none is doubled."""

import random
from collections import Counter

import network_hosts
import postgresql_server
import pytest
from shared_workers import Machine, until, write_study

from autotune.compose import SharingTimes
from autotune.compose.shared_pool import SharedPool
from autotune.registry import driving_lease, open_registry
from autotune.spec import LoaderConfig, SharedStudy, TrialRequest
from autotune.spec.study_file import read_study

pytestmark = pytest.mark.long

CLAIM_S = 2.0
SETTINGS = {"claim_s": CLAIM_S, "idle_s": 600}


def request_of(spec, tmp_path, batch_size):
    return TrialRequest(
        study=spec.name,
        workload=spec.workload,
        config=LoaderConfig.torch_default(batch_size),
        archive_root=str(tmp_path / "nobody's"),
        cache_root=str(tmp_path / "nobody's"),
        time_cap_s=spec.time_cap_s,
        timeout_s=spec.trial_timeout_s,
    )


def holders(registry):
    """Give the worker of each order that is being measured."""
    rows = registry._read(
        lambda connection: connection.exec_driver_sql(
            "SELECT key, worker FROM trial_orders WHERE state = 'taken'"
        ).all()
    )
    return dict(rows)


@pytest.mark.fault(7, 14)
def test_a_host_that_is_cut_off_in_mid_trial_loses_it_to_another_one_and_its_late_result_is_refused(tmp_path):
    """The story of a pulled cable.

    Two hosts measure for one study. The cable of the second is pulled while it measures. Its claim is not renewed, so
    it expires by the database's clock, and the first host measures the trial again. The cable is put back: the second
    one hands its result in, under a token that is old by then, and is refused. It goes on with other trials, and ends
    when the study is decided.
    """
    reason = postgresql_server.why_not()
    if reason:
        pytest.skip(reason)
    study = write_study(tmp_path, time_cap_s=1.5)
    spec = read_study(study)
    with network_hosts.network() as network, postgresql_server.running_server("*") as server:
        server.new_database("cut")
        url = f"postgresql://tester@{network.address}:{server.port}/cut"
        with open_registry(tmp_path, url) as registry:
            registry.acquire_lease(driving_lease("shared"), holder="the test", purpose="driving")
            registry.share_study(spec, "run")
            first, second = (
                Machine("work", study, url=url, folder=tmp_path / host.hostname, start=host.start, **SETTINGS)
                for host in (network.hosts[0], network.host())
            )
            first.wait_for("joined")
            its_key = second.wait_for("joined")["machine"]
            (machine_class,) = registry.machines_present("shared", "run")
            pool = SharedPool(
                registry, SharedStudy(name="shared", run="run", spec=spec), machine_class,
                times=SharingTimes(claim_s=CLAIM_S),
            )  # fmt: skip
            futures = [pool.submit([request_of(spec, tmp_path, size)]) for size in (4, 8, 16, 32)]
            until(lambda: its_key in holders(registry).values())
            lost = next(order for order, worker in holders(registry).items() if worker == its_key)
            network.hosts[1].cut()
            records = [future.result(60)[0] for future in futures]
            assert pool.capacity == 1
            network.hosts[1].mend()
            refused = second.wait_for("refused")
            assert refused["order"] == lost
            again = next(record for record in records if record.key == refused["keys"][0])
            assert (again.machine.host, again.failure) == ("host1", None)
            assert Counter(key for event in first.of("answered") for key in event["keys"])[again.key] == 1
            assert again.key not in [key for event in second.of("answered") for key in event["keys"]]
            until(lambda: pool.capacity == 2)
            later = [pool.submit([request_of(spec, tmp_path, size)]) for size in (4, 8, 16)]
            assert "host2" in {future.result(60)[0].machine.host for future in later}
            pool.close()
            registry.end_shared_study("shared", "run")
            assert [machine.ended() for machine in (first, second)] == [0, 0]
            assert [machine.of("ended")[0]["end"] for machine in (first, second)] == ["decided", "decided"]


@pytest.mark.fault(4)
@pytest.mark.parametrize("kills", [2, 20])
def test_workers_and_drivers_are_killed_at_random_and_no_trial_is_lost_or_doubled(postgresql, tmp_path, kills):
    draw, killed = random.Random(kills), []
    while len(killed) < kills:  # a study may be over before its last kill
        folder = tmp_path / f"after {len(killed)} kills"
        folder.mkdir()
        found = killed_at_random(postgresql.new_database(), folder, draw, at_most=kills - len(killed), few=kills == 2)
        assert found, "the driver is killed in its first trial"
        killed += found


def killed_at_random(url, folder, draw, *, at_most, few):
    """Run a study whose driver and workers are killed, look at what became of it, and give who was killed."""
    study = write_study(
        folder, budget="10s" if few else "3m", trials=4 if few else 24, num_workers=range(2 if few else 4)
    )
    started = []

    def start(name):
        role, settings = (
            ("drive", {"measures": False}) if name == "driver" else ("work", {"idle_s": 600, "emulated_node": name})
        )
        started.append(Machine(role, study, url=url, folder=folder / name, claim_s=CLAIM_S, **settings))
        return started[-1]

    machines = {name: start(name) for name in ("driver", "worker1", "worker2", "worker3")[: 3 if few else 4]}
    machines["driver"].wait_for("trial")
    killed = []
    while len(killed) < at_most:
        name = draw.choice(list(machines)) if killed else "driver"
        if machines["driver"].ends_within(draw.uniform(0.2, 3.0)):
            break
        machines[name].kill()
        killed.append(name)
        machines[name] = start(name)
    decided = machines["driver"].wait_for("decided", 280)
    assert len(decided["outcomes"]) == 1
    assert [machine.ended() for machine in machines.values()] == [0] * len(machines)
    with open_registry(folder, url) as registry:
        records = {record.key: record for record in registry.records("shared")}
        assert len(registry.decisions("shared")) == 1
    answers = [event["keys"] for machine in started for event in machine.of("answered")]
    check_once(records, answers)
    return killed


def check_once(records, answers):
    """Look whether everything that was measured was kept, and counted once.

    Args:
        records: What is kept, by key.
        answers: The keys of each answer that a machine was told to be kept.
    """
    searched = Counter(record.config for record in records.values() if record.phase == "search")
    assert set(searched.values()) == {1}, "no configuration was searched twice"
    answered = Counter(key for keys in answers for key in keys)
    assert set(answered.values()) == {1}, "no request was answered twice"
    assert answered.keys() <= records.keys(), "what a machine was told to be kept is there"
    blocks = [{records[key].machine.host for key in keys} for keys in answers if len(keys) > 1]
    assert blocks
    assert all(len(hosts) == 1 for hosts in blocks), "a block is of one machine"
