"""Studies on several machines at once, over recorded rates."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace

import pytest
from optuna.trial import TrialState
from study_records import MACHINE, measured_record

from autotune.constants import PROCESS_RUNS_MAX
from autotune.errors import MachineLostError, NoMachineError, RegistryError
from autotune.spec import Failure, LoaderConfig
from autotune.study.ledger import Ledger
from autotune.study.optuna_store import KEY
from autotune.study.race import Race, Raced
from autotune.study.replayed import RecordsInMemory
from autotune.study.run import _spent_s
from autotune.study.runs import Order, Runs
from autotune.trial import MachinePool
from autotune.trial.noise import Noise
from autotune.trial.replay import ReplayRunner

SPEEDS = {"a": 1.0, "b": 0.9, "c": 1.12, "d": 0.97}
SECONDS_A_RUN = 3.0


def npy_is_faster(config):
    return (300.0 if config.archive == "npy" else 100.0,)


class Machine(ReplayRunner):
    """Takes a moment, so that others run beside it."""

    def run(self, request):
        time.sleep(0.002)
        return super().run(request)


class LostAt(Machine):
    """Is lost in one of its runs."""

    def __init__(self, *args, at, **kwargs):
        super().__init__(*args, **kwargs)
        self._at = at

    def run(self, request):
        record = super().run(request)
        if self.runs == self._at:
            raise MachineLostError("the machine is gone")
        return record


@pytest.fixture
def make_many(make_bench):
    """Make a study on four machines of unlike speed, of which some are lost in one of their runs."""

    def make(rates, *, lost=None, **fields):
        bench = make_bench(rates, **fields)
        landscape = bench.runner._landscape
        machines = [
            LostAt(landscape, seed=place, noise=Noise(run_to_run=0.02), host=host, speed=speed,
                   at=(lost or {}).get(host))
            for place, (host, speed) in enumerate(SPEEDS.items())
        ]  # fmt: skip
        pool = MachinePool(machines, wait_s=0.1)
        setting = replace(
            bench.setting, pool=pool, clock=lambda: sum(each.runs for each in machines) * SECONDS_A_RUN / 4
        )
        return replace(bench, setting=setting), pool

    return make


def by_phase(records, phase):
    return [record for record in records if record.phase == phase]


def test_several_machines_come_to_the_same_decision(make_many):
    bench, pool = make_many(npy_is_faster)
    with closing(pool):
        summary = bench.run()
    assert summary.outcome == "gain"
    assert summary.best.archive == "npy"
    assert 3.0 * 0.93 < summary.ratio.low < summary.ratio.high < 3.0 * 1.07, "machines differ by more than a pair does"
    assert summary.process_runs <= PROCESS_RUNS_MAX
    assert any(note.startswith("4 machines of one class measured (a, b, c, d)") for note in summary.notes)


def test_every_trial_is_kept_once_and_told_once(make_many):
    bench, pool = make_many(npy_is_faster)
    with closing(pool):
        bench.run()
    records = bench.store.records("s")
    searched = by_phase(records, "search")
    assert len({record.config for record in searched}) == len(searched)
    assert {record.machine.host for record in searched} == set(SPEEDS)
    told = {trial.user_attrs[KEY] for trial in bench.trials() if KEY in trial.user_attrs}
    assert told == {record.key for record in searched}
    assert {trial.state for trial in bench.trials()} <= {TrialState.COMPLETE, TrialState.FAIL}


class SlowToTell:
    """Takes its time over each trial, while several machines end theirs."""

    def on_phase(self, event):
        pass

    def on_trial(self, event):
        time.sleep(0.02)

    def on_study(self, event):
        pass


def test_what_ends_while_others_are_told_of_is_kept_too(make_many):
    bench, pool = make_many(npy_is_faster, listeners=[SlowToTell()])
    with closing(pool):
        summary = bench.run()
    measured = round(bench.setting.clock() / SECONDS_A_RUN * 4)
    assert len(bench.store.records("s")) == measured
    assert summary.process_runs == measured + 1, "and the probe"


class MeetsOthers(ReplayRunner):
    """Verifies while two other machines are busy, of which one has begun with the blocks."""

    def __init__(self, *args, meeting, **kwargs):
        super().__init__(*args, **kwargs)
        self._meeting = meeting

    def run(self, request):
        if request.phase in ("verify", "confirm"):
            with suppress(threading.BrokenBarrierError):  # of those that come after the first three
                self._meeting.wait(30)
                self._meeting.abort()
        return super().run(request)


def test_no_machine_waits_while_others_verify(make_bench):
    bench = make_bench(npy_is_faster)
    met = []
    meeting = threading.Barrier(3, action=lambda: met.append(True))
    machines = [
        MeetsOthers(bench.runner._landscape, seed=place, noise=Noise(run_to_run=0.02), host=str(place), meeting=meeting)
        for place in range(3)
    ]
    with closing(MachinePool(machines, wait_s=0.1)) as pool:
        summary = replace(bench, setting=replace(bench.setting, pool=pool)).run()
    assert met, "a third machine ran a block meanwhile"
    assert summary.outcome == "gain"
    assert len(by_phase(bench.store.records("s"), "verify")) == 2


class BreaksLimitWhenVerified(Machine):
    """Finds out with the largest sample alone that the memory does not do."""

    def run(self, request):
        record = super().run(request)
        if request.phase == "verify" and request.config.archive == "npy":
            return record.replace(
                measurement=None, failure=Failure(kind="host_memory", phase="measure", message="full")
            )
        return record


def test_what_breaks_a_limit_when_verified_is_not_handed_out_though_its_blocks_have_begun(make_bench):
    bench = make_bench(npy_is_faster)
    machines = [BreaksLimitWhenVerified(bench.runner._landscape, seed=place, host=str(place)) for place in range(4)]
    with closing(MachinePool(machines, wait_s=0.1)) as pool:
        summary = replace(bench, setting=replace(bench.setting, pool=pool)).run()
    assert summary.best.archive == "files"
    assert summary.outcome != "gain"


def test_no_machine_waits_while_others_confirm(make_many):
    bench, pool = make_many(npy_is_faster)
    with closing(pool):
        summary = bench.run()
    assert summary.pairs == 12, "three rounds of four machines, where ten would leave two waiting"


def test_a_pair_of_the_confirmation_is_measured_on_one_machine(make_many):
    bench, pool = make_many(npy_is_faster)
    with closing(pool):
        summary = bench.run()
    confirming = by_phase(bench.store.records("s"), "confirm")
    for host in SPEEDS:
        here = [record.config for record in confirming if record.machine.host == host]
        assert here.count(summary.best) == here.count(summary.default)


@pytest.mark.parametrize("lost", [{"b": 1}, {"a": 3, "c": 5}, {"a": 6, "b": 6, "d": 7}])
def test_a_study_goes_on_where_machines_are_lost(make_many, lost):
    bench, pool = make_many(npy_is_faster, lost=lost)
    with closing(pool):
        summary = bench.run()
        assert pool.capacity == 4 - len(lost)
    assert summary.outcome == "gain"
    records = bench.store.records("s")
    assert len({record.key for record in records}) == len(records)
    searched = by_phase(records, "search")
    assert {trial.user_attrs[KEY] for trial in bench.trials() if KEY in trial.user_attrs} == {r.key for r in searched}
    assert not bench.trials(TrialState.RUNNING)


def test_a_study_without_a_machine_ends_with_an_error_and_goes_on_later(make_many):
    first, pool = make_many(npy_is_faster, lost=dict.fromkeys(SPEEDS, 2))
    with closing(pool), pytest.raises(NoMachineError):
        first.run()
    finished = first.store.records("s")
    measured = [record for record in finished if record.measurement]
    assert len(measured) == len(SPEEDS), "each machine gave a record before it was lost"
    running = first.trials(TrialState.RUNNING)
    assert running

    second, pool = make_many(npy_is_faster)
    assert second.settle() == len(running)
    with closing(pool):
        assert second.run().outcome == "gain"
    assert second.store.records("s")[: len(finished)] == finished


class Holds(Machine):
    """Measures one batch size no sooner than it may."""

    may = threading.Event()

    def run(self, request):
        if request.config.batch_size == 16:
            assert self.may.wait(30)
        return super().run(request)


class BrokenOnce(RecordsInMemory):
    """Cannot save the first record at first."""

    broken = None

    def save_record(self, record):
        if self.broken is None:
            self.broken = record
            raise RegistryError("the database is away")
        super().save_record(record)


def runs_of(bench, **changes):
    return Runs(replace(bench.setting, **changes), Ledger([]), 0.0)


def orders_of(*batch_sizes):
    return [Order("race", [LoaderConfig.torch_default(size).canonical(has_accelerator=False)]) for size in batch_sizes]


def test_what_ends_while_an_earlier_block_runs_is_kept_at_once(make_bench):
    bench = make_bench(npy_is_faster)
    machines = [Holds(bench.runner._landscape, host=str(place)) for place in range(3)]
    with closing(MachinePool(machines, wait_s=0.1)) as pool, ThreadPoolExecutor(1) as threads:
        ending = threads.submit(lambda: list(runs_of(bench, pool=pool).blocks(orders_of(16, 32))))
        try:
            end = time.monotonic() + 20
            while not bench.store.records("s"):
                assert time.monotonic() < end, "it waits for the block that began first"
                time.sleep(0.01)
        finally:
            Holds.may.set()
        assert [records[0].config.batch_size for records in ending.result(30)] == [16, 32]


def test_a_record_that_could_not_be_saved_is_saved_as_soon_as_that_is_possible(make_bench):
    bench, store = make_bench(npy_is_faster), BrokenOnce()
    machines = [Machine(bench.runner._landscape, host=str(place)) for place in range(2)]
    with closing(MachinePool(machines, wait_s=0.1)) as pool:
        runs = runs_of(bench, pool=pool, store=store)
        with pytest.raises(RegistryError):
            list(runs.blocks(orders_of(16, 32)))
    assert store.broken in store.records("s")


@pytest.mark.parametrize(("spent", "blocks"), [(0, 8), (80, 3), (PROCESS_RUNS_MAX, 3)])
def test_many_machines_race_as_often_as_processes_are_left_and_three_times_at_the_least(make_bench, spent, blocks):
    bench = make_bench(npy_is_faster)
    racing = sorted(bench.setting.space.points, key=LoaderConfig.label)
    machines = [ReplayRunner(bench.runner._landscape, host=str(place)) for place in range(8)]
    with closing(MachinePool(machines, wait_s=0.1)) as pool:
        runs = runs_of(bench, pool=pool)
        runs._probes = spent
        assert Race(runs, seed=0)._round_size(Raced(logs={}, survivors=racing[:10])) == blocks


def test_an_interrupted_run_is_charged_what_its_busiest_machine_took():
    config = LoaderConfig()
    by_host = {"a": (10.0, 20.0), "b": (25.0,)}
    earlier = [
        measured_record(config, 1.0, wall_s=wall_s, machine=MACHINE.replace(host=host))
        for host, walls in by_host.items()
        for wall_s in walls
    ]
    assert _spent_s(earlier) == 30.0
    assert _spent_s([]) == 0.0
