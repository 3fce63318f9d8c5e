"""Several machines, any of which may be lost."""

import threading
from contextlib import closing

import pytest
from machine_processes import MachineProcess
from study_records import DATASET, MACHINE
from trial_requests import trial_request

from autotune.errors import MachineLostError, NoMachineError
from autotune.spec import LoaderConfig
from autotune.trial import MachinePool, ReplayRunner, SinglePool, TrialPool
from autotune.trial.landscape import make_landscape

MEASURED = LoaderConfig(batch_size=8)
LANDSCAPE = make_landscape({MEASURED.canonical(has_accelerator=False): [100.0]}, machine=MACHINE, dataset=DATASET)
SOON_S = 0.2


class Held(ReplayRunner):
    """Measures only while it may, and counts who measures at the same time."""

    def __init__(self, host):
        super().__init__(LANDSCAPE, host=host)
        self.may, self.asked, self.keys = threading.Event(), threading.Event(), []

    def run(self, request):
        self.keys.append(request.key)
        self.asked.set()
        assert self.may.wait(10)
        return super().run(request)


class Lost(Held):
    """Is lost as soon as it may."""

    def run(self, request):
        super().run(request)
        raise MachineLostError(f"{request.key} was on a machine that is gone")


def requests(folder, count):
    return [trial_request(folder) for _ in range(count)]


def hosts(records):
    return {record.machine.host for record in records}


def test_both_pools_have_the_protocol(tmp_path):
    alone = SinglePool(ReplayRunner(LANDSCAPE, host="alone"))
    with closing(MachinePool([ReplayRunner(LANDSCAPE, host="alone")], wait_s=SOON_S)) as several:
        for pool in (alone, several):
            assert isinstance(pool, TrialPool)
            asked = requests(tmp_path, 3)
            records = pool.submit(asked).result()
            assert [record.key for record in records] == [request.key for request in asked]
            assert hosts(records) == {"alone"}
            assert pool.capacity == 1
            assert pool.probe(asked[0]).kind == "invalid", "nothing was probed in the recording"


def test_one_machine_tells_of_each_record_as_it_comes(tmp_path):
    runner = ReplayRunner(LANDSCAPE)
    told = []
    SinglePool(runner).submit(requests(tmp_path, 3), on_record=lambda record: told.append((record.key, runner.runs)))
    assert [runs for _, runs in told] == [1, 2, 3]


def test_a_machine_measures_one_trial_at_a_time_and_a_block_stays_on_it(tmp_path):
    machines = [Held("a"), Held("b")]
    with closing(MachinePool(machines, wait_s=SOON_S)) as pool:
        blocks = [pool.submit(requests(tmp_path, 2)) for _ in range(4)]
        for machine in machines:
            assert machine.asked.wait(10)
        assert [len(machine.keys) for machine in machines] == [1, 1]
        for machine in machines:
            machine.may.set()
        assert all(len(hosts(block.result())) == 1 for block in blocks)
        assert sum(len(machine.keys) for machine in machines) == 8


def test_what_a_lost_machine_measured_is_measured_again_on_another(tmp_path):
    lost, good = Lost("lost"), Held("good")
    with closing(MachinePool([lost, good], wait_s=SOON_S)) as pool:
        blocks = [pool.submit(requests(tmp_path, 2)) for _ in range(4)]
        assert lost.asked.wait(10)
        lost.may.set()
        good.may.set()
        records = [record for block in blocks for record in block.result()]
        assert hosts(records) == {"good"}
        assert len(good.keys) == len(set(good.keys)) == 8, "nothing is measured twice on the machine that was left"
        assert pool.capacity == 1


def test_what_has_no_machine_left_waits_for_one_and_not_for_ever(tmp_path):
    lost, good = Lost("lost"), Held("good")
    lost.may.set()
    good.may.set()
    with closing(MachinePool([lost], wait_s=30.0)) as pool:
        waiting = pool.submit(requests(tmp_path, 1))
        assert lost.asked.wait(10)
        pool.add(good)
        assert hosts(waiting.result(10)) == {"good"}
    with closing(MachinePool([lost], wait_s=SOON_S)) as pool:
        for _ in range(2):
            with pytest.raises(NoMachineError, match=r"none came within .* was on a machine that is gone"):
                pool.submit(requests(tmp_path, 1)).result(10)
        with pytest.raises(NoMachineError):
            pool.probe(trial_request(tmp_path))


@pytest.mark.parametrize(("count", "kind"), [(1, "crashed"), (2, "senseless")])
def test_what_machines_are_lost_over_one_after_another_is_left_and_blamed_where_it_was_alone(tmp_path, count, kind):
    lost = [Lost(name) for name in "abc"]
    for machine in lost:
        machine.may.set()
    asked = requests(tmp_path, count)
    with closing(MachinePool(lost, wait_s=30.0)) as pool:
        records = pool.submit(asked).result(10)
        assert [record.key for record in records] == [request.key for request in asked]
        assert {record.failure.kind for record in records} == {kind}
        pool.add(ReplayRunner(LANDSCAPE, host="good"))
        assert hosts(pool.submit(requests(tmp_path, 1)).result(10)) == {"good"}


def test_an_error_of_the_program_reaches_who_waits_and_costs_no_machine(tmp_path):
    class Broken(ReplayRunner):
        def probe(self, request):
            raise ZeroDivisionError(request.key)

    with closing(MachinePool([Broken(LANDSCAPE)], wait_s=SOON_S)) as pool:
        with pytest.raises(ZeroDivisionError):
            pool.probe(trial_request(tmp_path))
        assert pool.submit(requests(tmp_path, 1)).result(10)


def test_a_closed_pool_drops_what_waits(tmp_path):
    held = Held("held")
    pool = MachinePool([held], wait_s=SOON_S)
    first, second = (pool.submit(requests(tmp_path, 1)) for _ in range(2))
    assert held.asked.wait(10)
    held.may.set()
    pool.close()
    pool.close()
    assert first.done()
    assert second.done()
    with pytest.raises(NoMachineError, match="the pool was closed"):
        pool.submit(requests(tmp_path, 1)).result(10)


def test_a_killed_process_is_a_lost_machine(tmp_path):
    machines = [MachineProcess(LANDSCAPE, name, seconds=0.05) for name in ("a", "b")]
    with closing(MachinePool(machines, wait_s=SOON_S)) as pool:
        blocks = [pool.submit(requests(tmp_path, 1)) for _ in range(6)]
        machines[0].kill()
        records = [block.result(10)[0] for block in blocks]
        assert len({record.key for record in records}) == 6
        assert pool.capacity == 1
        assert hosts(records[-2:]) == {"b"}
