"""Which smaller machine keeps a consumer fed: what is predicted from CPU time, and what runs with fewer CPUs show."""

import threading
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_records import MACHINE, measurement

from autotune.advice import smaller_machine_text
from autotune.constants import DATA_WAIT_TARGET_SHARE
from autotune.errors import NoMachineError
from autotune.spec import ArchiveUse, LoaderConfig, MemoryUse
from autotune.study.earlier import interrupted_records
from autotune.study.smaller import Need, feeding, is_ample, tries
from autotune.trial import MachinePool
from autotune.trial.noise import Noise
from autotune.trial.replay import ReplayRunner
from autotune.units import MIB

EMULATED = {"kind": "emulated", "step_ms_per_sample": 10}
LARGE = MACHINE.replace(cpu_count=4, cpu_inputs={"affinity": 4})


def same_rate(_config):
    return (100.0,)


class Machine(ReplayRunner):
    """Answers as a machine of four CPUs does whose configurations take known CPU time: what is missing is waited for.

    Plain files take `files_cpus` to keep up with the consumer, an archive a fifth of it and 30 MiB. Under a limit,
    which is seen as `limit` on `limited_host`, the consumer waits for a share of `friction` more with plain files, or
    the run is ended by `interruption`.
    """

    files_cpus = 2.5
    wait_share = 0.01
    friction = 0.0
    limit = "cgroup_quota"
    interruption = None
    limited_host = LARGE.host

    def run(self, request):
        if request.cpus and self.interruption is not None:
            raise self.interruption
        record = super().run(request.replace(cpus=None))
        if record.measurement is None:
            return record
        archived = request.config.archive != "files"
        wanted = self.files_cpus * (0.2 if archived else 1.0)
        got = min(wanted, request.cpus or 4)
        (window, *_), rate = record.measurement.windows, record.measurement.samples_per_s * got / wanted
        lost = self.friction if request.cpus and not archived else 0.0
        wait_share = max(self.wait_share, 1 - got / wanted) + lost
        changes = {
            "samples_per_s": rate,
            "data_wait_share": wait_share,
            "windows": (window.replace(cpu_s=got * window.seconds),) * 3,
            "memory": MemoryUse(host_pss_bytes=200 * MIB),
            "archive": ArchiveUse(size_bytes=30 * MIB) if archived else None,
        }
        return record.replace(measurement=record.measurement.replace(**changes), machine=self._seen(request.cpus))

    def _seen(self, cpus):
        if cpus is None or self.limit is None:
            return LARGE
        return LARGE.replace(host=self.limited_host, cpu_count=cpus, cpu_inputs={"affinity": 4, self.limit: cpus})


@pytest.fixture
def bench_of(make_bench):
    def make(space=None, *, consumer=EMULATED, **traits):
        space = {"batch_size": [32], "num_workers": [0, 1], "cache": ["none"], **(space or {"archive": ["files"]})}
        runner_class = type("Traits", (Machine,), traits)
        return make_bench(same_rate, runner_class=runner_class, consumer=consumer, space=space, machine=LARGE)

    return make


@pytest.fixture(params=[1, 4], ids=["one machine", "four machines"])
def on_machines(request):
    """Take as many machines for a study as are wanted."""
    pools = []

    def take(bench):
        runner = bench.runner
        machines = [
            type(runner)(runner._landscape, seed=place, noise=Noise(run_to_run=0.02), host=str(place))
            for place in range(request.param)
        ]
        pools.append(MachinePool(machines, wait_s=0.1))
        return replace(bench, setting=replace(bench.setting, pool=pools[-1]))

    yield take
    for pool in pools:
        pool.close()


def limited(bench):
    """Give the numbers of CPUs that were tried."""
    records = [record for record in bench.store.records("s") if record.phase == "smaller"]
    return [record.machine.cpu_count for record in records]


def test_the_fewest_cpus_are_verified_by_a_run_with_just_these(bench_of, on_machines):
    bench = on_machines(bench_of())
    found = bench.run().smaller
    assert (found.cpus, found.of_cpus, found.state, found.limited_by) == (3, 4, "verified", "quota")
    assert limited(bench) == [3], "two CPUs cannot do what keeps two and a half busy"
    assert found.data_wait_share <= DATA_WAIT_TARGET_SHARE
    (decision,) = bench.store.decisions("s")
    assert decision.smaller == found
    text = smaller_machine_text(decision)
    assert "3 CPUs of the 4 here would do" in text
    assert "verified by a run under a quota of 3 CPUs" in text
    assert "200 MiB of host memory" in text


def test_what_takes_fewer_cpus_is_named_with_the_bytes_that_it_takes_instead(bench_of):
    bench = bench_of({"archive": ["files", "npy"]})
    found = bench.run().smaller
    assert (found.cpus, found.config.archive, found.archive_bytes) == (1, "npy", 30 * MIB)
    assert "30 MiB of archive" in smaller_machine_text(*bench.store.decisions("s"))


def test_cpus_that_turn_out_too_few_are_said_and_the_next_number_is_tried(bench_of):
    bench = bench_of(files_cpus=2.09, friction=0.03)
    found = bench.run().smaller
    assert limited(bench) == [2, 3]
    assert (found.cpus, found.state, found.too_few) == (3, "verified", 2)
    told = f"in a run with 2 CPUs and {found.too_few_config.label()} the consumer waited for 7.3%"
    assert told in smaller_machine_text(*bench.store.decisions("s"))


def test_cpus_are_too_few_only_where_the_configuration_that_needs_least_of_them_does_not_do_either(bench_of):
    bench = bench_of({"archive": ["files", "npy"]}, files_cpus=0.88, friction=0.06)
    found = bench.run().smaller
    assert limited(bench) == [1, 1], "plain files take fewer bytes and wait, the archive keeps the consumer fed"
    assert (found.cpus, found.state, found.config.archive, found.too_few) == (1, "verified", "npy", None)


@pytest.mark.parametrize(
    ("files_cpus", "tried", "state", "told"),
    [
        (3.9, [], "predicted", "predicted from that CPU time, not verified by a run"),
        (3.05, [3], "verified", "in a run with 3 CPUs and"),
    ],
)
def test_that_all_cpus_are_needed_is_predicted_unless_one_less_was_seen_not_to_do(
    files_cpus, tried, state, told, bench_of
):
    bench = bench_of(files_cpus=files_cpus, friction=0.06)
    found = bench.run().smaller
    assert limited(bench) == tried
    assert (found.cpus, found.state, found.too_few) == (4, state, max(tried, default=None))
    text = smaller_machine_text(*bench.store.decisions("s"))
    assert "all 4 CPUs here are needed" in text
    assert told in text


def test_a_decision_outlives_an_interrupt_of_the_runs_with_fewer_cpus(bench_of, on_machines):
    bench = on_machines(bench_of(interruption=KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    (decision,) = bench.store.decisions("s")
    assert (decision.smaller.cpus, decision.smaller.state) == (3, "predicted")
    assert interrupted_records(bench.setting) == [], "the next run begins anew"


def test_a_study_whose_last_machine_is_lost_in_the_runs_with_fewer_cpus_ends_as_decided(bench_of, on_machines):
    bench = on_machines(bench_of(interruption=NoMachineError("the last node went")))
    found = bench.run().smaller
    assert (found.cpus, found.state) == (3, "predicted")


def test_a_run_with_fewer_cpus_shows_nothing_on_a_machine_that_never_ran_it_with_all(bench_of):
    bench = bench_of(limited_host="elsewhere")
    found = bench.run().smaller
    assert limited(bench) == [3]
    assert (found.cpus, found.state, found.too_few) == (3, "predicted", None)


def test_where_a_quota_cannot_be_had_the_answer_says_affinity(bench_of):
    bench = bench_of(limit="affinity")
    assert bench.run().smaller.limited_by == "affinity"
    assert "under affinity to 3 CPUs" in smaller_machine_text(*bench.store.decisions("s"))


def test_a_consumer_that_waits_with_all_cpus_needs_no_smaller_machine(bench_of):
    bench = bench_of(wait_share=0.2)
    found = bench.run().smaller
    assert not found.fed
    assert limited(bench) == []
    assert "none, as the consumer waits for 20.0% of its time" in smaller_machine_text(*bench.store.decisions("s"))


def test_of_loading_alone_it_cannot_be_said(bench_of):
    bench = bench_of(consumer={"kind": "loader"})
    assert bench.run().smaller is None
    assert limited(bench) == []
    assert "cannot be said, as this study measured loading alone" in smaller_machine_text(*bench.store.decisions("s"))


def test_a_run_that_cannot_be_limited_leaves_a_prediction(bench_of, on_machines):
    bench = on_machines(bench_of(limit=None))
    found = bench.run().smaller
    assert (found.cpus, found.state, found.limited_by) == (3, "predicted", None)
    assert limited(bench) == [4], "and is not tried again"
    assert "not verified by a run" in smaller_machine_text(*bench.store.decisions("s"))


class ConfirmsUntilOthersWait(Machine):
    """The first block of the confirmation takes until a run with fewer CPUs begins."""

    first, waited = threading.Lock(), threading.Event()

    def run(self, request):
        if request.cpus:
            self.waited.set()
        elif request.phase == "confirm" and self.first.acquire(blocking=False):
            assert self.waited.wait(30), "no machine ran with fewer CPUs beside the confirmation"
        return super().run(request)


def test_a_machine_that_would_wait_while_others_confirm_runs_with_fewer_cpus(make_bench):
    space = {"batch_size": [32], "num_workers": [0, 1], "cache": ["none"], "archive": ["files"]}
    bench = make_bench(same_rate, consumer=EMULATED, space=space, machine=LARGE)
    machines = [ConfirmsUntilOthersWait(bench.runner._landscape, seed=place, host=str(place)) for place in range(4)]
    with closing(MachinePool(machines, wait_s=0.1)) as pool:
        summary = replace(bench, setting=replace(bench.setting, pool=pool)).run()
    assert summary.smaller.state == "verified"
    assert limited(bench) == [3], "and its run is not made again"


def test_what_slows_the_consumer_down_does_not_feed_it():
    needs = [_need(LoaderConfig(num_workers=count), rate=rate) for count, rate in ((1, 80.0), (2, 100.0), (3, 95.0))]
    assert [need.config.num_workers for need in feeding(needs)] == [2, 3]


def test_what_is_slower_on_a_slower_machine_does_feed_it():
    rates = ({"fast": 100.0, "slow": 70.0}, {"slow": 68.0}, {"fast": 80.0}, {"fast": 99.0, "slow": 50.0})
    needs = [replace(_need(LoaderConfig(num_workers=place)), rates=each) for place, each in enumerate(rates)]
    assert [need.config.num_workers for need in feeding(needs)] == [0, 1]


@given(
    loads=st.lists(st.tuples(st.floats(0.01, 40), st.integers(0, 5)), min_size=1, max_size=8),
    of_cpus=st.integers(1, 64),
)
def test_numbers_of_cpus_grow_from_the_fewest_that_can_do_and_bytes_decide_among_those_that_do(loads, of_cpus):
    needs = [
        _need(LoaderConfig(num_workers=place), busy_cpus=load, host=host) for place, (load, host) in enumerate(loads)
    ]
    found = list(tries(needs, of_cpus))
    least = min(load for load, _ in loads)
    numbers = [cpus for cpus in range(1, of_cpus) if least * (1 - DATA_WAIT_TARGET_SHARE) <= cpus]
    assert list(dict.fromkeys(cpus for cpus, _ in found)) == numbers
    assert [cpus for cpus, _ in found] == sorted(cpus for cpus, _ in found)
    for cpus in numbers:
        chosen = [need for number, need in found if number == cpus]
        ample = [need for need in needs if is_ample(cpus, need)]
        if ample:
            assert chosen[0].order == min(need.order for need in ample)
        assert chosen[-1].busy_cpus == least, "only then more CPUs are tried"
        assert len({need.config for need in chosen}) == len(chosen)


def _need(config, *, busy_cpus=1.0, rate=100.0, host=0):
    return Need(
        config=config, busy_cpus=busy_cpus, rates={"here": rate}, samples_per_s=rate, data_wait_share=0.01, wall_s=1.0,
        order=(host, 0, config.label()), measured=measurement(rate),
    )  # fmt: skip
