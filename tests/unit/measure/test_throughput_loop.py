"""The measuring loop on a clock that the loader itself moves."""

import random

import pytest

from autotune.constants import CONTENTION_REPEATS
from autotune.measure.limits import MeasurementStoppedError, stop
from autotune.measure.result import assemble
from autotune.measure.throughput import Plan, measure_throughput
from autotune.spec import MemoryUse, Phases

BATCH = 10


class Bench:
    """A loader, its surroundings and the clock: every batch takes as long as it is told to.

    Args:
        batches: Batches of an epoch; None is endless.
        batch_s: Seconds of a batch, from its number over all epochs.
        start_s: Seconds from `iter()` to the first batch, beyond a batch's time; by number of the pass.
        others: CPU share of others, by number of the window.
    """

    def __init__(self, batches, *, batch_s=lambda _: 0.01, start_s=lambda _: 0.0, others=lambda _: 0.0):
        self.batches, self.batch_s, self.start_s, self.others = batches, batch_s, start_s, others
        self.now_s = 0.0
        self.passes = self.given = self.edges = self.prepared = self.checks = 0
        self.inside = False

    def clock(self):
        return self.now_s

    def __iter__(self):
        number = self.passes
        self.passes += 1

        def generate():
            self.now_s += self.start_s(number)
            place = 0
            while self.batches is None or place < self.batches:
                self.now_s += self.batch_s(self.given)
                self.given += 1
                place += 1
                yield place

        return generate()

    def before_pass(self):
        assert not self.inside
        self.prepared += 1

    def begin_window(self):
        self.inside = True

    def after_batch(self):
        self.checks += 1

    def end_window(self):
        self.inside = False
        self.edges += 1
        return self.others(self.edges - 1)

    def own_cpu_s(self):
        return None

    def synchronise(self):
        pass

    def measure(self, **plan):
        return measure_throughput(
            self,
            consume=lambda _: None,
            count=lambda *_: BATCH,
            plan=Plan(**{"time_cap_s": 2.0, **plan}),
            around=self,
            clock=self.clock,
        )


def test_windows_lie_inside_a_long_epoch_and_stop_when_precise():
    found = Bench(None).measure()
    assert not found.whole_epochs
    assert found.stopped == "precise"
    assert len(found.windows) == 3
    assert found.samples_per_s == pytest.approx(1000)
    assert all(window.seconds >= 0.25 and window.batches >= 4 for window in found.windows)


def test_windows_are_whole_epochs_where_an_epoch_fits():
    bench = Bench(50, start_s=lambda _: 0.1)
    found = bench.measure()
    assert found.whole_epochs
    assert found.exhausted
    assert {window.samples for window in found.windows} == {500}
    assert found.samples_per_s == pytest.approx(500 / 0.6)


def test_the_first_epoch_is_warm_up_and_counts_in_no_window():
    found = Bench(50, batch_s=lambda number: 0.01, start_s=lambda number: 0.5 if number == 0 else 0.0).measure()
    assert found.whole_epochs
    assert found.samples_per_s == pytest.approx(1000)
    assert found.first_batch_s == pytest.approx(0.51)


def test_short_epochs_share_a_window_unless_each_is_prepared():
    together, apart = Bench(2), Bench(2)
    assert min(window.seconds for window in together.measure().windows) >= 0.25
    assert apart.measure(whole_epochs_grouped=False).windows[0].batches == 2
    assert apart.prepared == apart.passes


def test_the_prefilled_queue_is_left_out_of_windows():
    found = Bench(None, batch_s=lambda number: 0.0001 if number < 8 else 0.01).measure(warm_batches=8)
    assert found.samples_per_s == pytest.approx(1000)


def test_the_ramp_is_measured_apart_and_lowers_the_score():
    found = Bench(None, start_s=lambda _: 1.0).measure(warm_batches=4, epoch_samples=1000)
    assert found.ramp_s == pytest.approx(1.0)
    assert found.samples_per_s == pytest.approx(1000 / (1.0 + 1.0))


def test_the_start_of_persistent_workers_does_not_count_for_every_epoch():
    bench = Bench(None, start_s=lambda number: 1.0 if number == 0 else 0.04)
    found = bench.measure(warm_batches=4, epoch_samples=1000, persistent_workers=True)
    assert bench.passes == 2
    assert found.ramp_s < 0.05
    assert found.first_batch_s == pytest.approx(1.01)


def test_a_ramp_that_hardly_weighs_is_not_measured_again():
    bench = Bench(None, start_s=lambda _: 0.05)
    bench.measure(warm_batches=4, epoch_samples=100_000, persistent_workers=True)
    assert bench.passes == 1


def test_a_subset_predicts_the_rate_of_the_full_epoch():
    found = Bench(50, start_s=lambda _: 0.1).measure(epoch_samples=50_000)
    assert found.whole_epochs
    assert found.samples_per_s == pytest.approx(50_000 / (50 + 0.1), rel=0.01)


def test_epochs_longer_than_windows_go_on_in_the_next_pass():
    bench = Bench(90, batch_s=lambda number: 0.01 if number % 2 else 0.02)
    found = bench.measure(time_cap_s=2.0)
    assert not found.whole_epochs
    assert found.stopped == "precise"


def test_an_epoch_without_room_for_a_window_is_a_window_itself():
    found = Bench(3, batch_s=lambda _: 1.0).measure(warm_batches=4)
    assert found.whole_epochs
    assert found.windows[0].samples == 30
    assert found.samples_per_s == pytest.approx(10)


def test_the_time_cap_ends_a_noisy_run():
    levels = random.Random(1)
    level_s = [levels.choice([0.01, 0.03]) for _ in range(100)]
    found = Bench(None, batch_s=lambda number: level_s[number // 20]).measure(time_cap_s=1.0)
    assert found.stopped == "time_cap"
    assert 1.0 <= sum(window.seconds for window in found.windows) < 3.0


def test_a_drifting_run_is_extended_once_and_marked():
    found = Bench(None, batch_s=lambda number: 0.01 + number * 0.0001).measure(time_cap_s=2.0)
    assert found.unsteady
    assert 3.0 <= sum(window.seconds for window in found.windows) < 4.5


def test_a_run_that_cannot_win_is_given_up_after_two_windows():
    found = Bench(None).measure(incumbent_samples_per_s=10_000)
    assert found.stopped == "futility"
    assert len(found.windows) == 2


def test_a_run_that_could_win_is_not_given_up():
    assert Bench(None).measure(incumbent_samples_per_s=1_500).stopped == "precise"


def test_disturbed_windows_are_set_aside_and_repeated():
    found = Bench(None, others=lambda number: 0.9 if number in (1, 2) else 0.0).measure()
    assert [window.set_aside for window in found.windows] == [True, True, False, False, False]


def test_a_machine_that_is_always_busy_does_not_measure_for_ever():
    found = Bench(None, others=lambda _: 0.9).measure()
    assert sum(window.set_aside for window in found.windows) == CONTENTION_REPEATS
    assert found.stopped == "precise"


def test_a_loader_without_batches_is_empty():
    with pytest.raises(MeasurementStoppedError) as caught:
        Bench(0).measure()
    assert caught.value.failure.kind == "empty"


def test_a_rate_that_is_none_is_senseless():
    found = Bench(None).measure()
    for rate in (float("nan"), float("inf"), 0.0):
        found.samples_per_s = rate
        with pytest.raises(MeasurementStoppedError) as caught:
            assemble(found, epoch_samples=None, memory=MemoryUse(), phases=Phases(), seed=0)
        assert caught.value.failure.kind == "senseless"


def test_a_passed_limit_ends_the_run_at_once():
    bench = Bench(None)

    def check():
        bench.checks += 1
        if bench.checks == 7:
            raise stop("device_memory", "measure", "too much", excess=0.5)

    bench.after_batch = check
    with pytest.raises(MeasurementStoppedError) as caught:
        bench.measure()
    assert bench.given == 7
    assert caught.value.failure.infeasible


def test_the_measurement_carries_waits_and_circumstances():
    found = Bench(None).measure()
    measured = assemble(
        found, epoch_samples=1000, memory=MemoryUse(), phases=Phases(build_s=1.0), seed=3, bytes_read=5, throttled_s=0.0
    )
    assert measured.data_wait_share == pytest.approx(1.0)
    assert measured.wait_p50_s == pytest.approx(0.01)
    assert measured.phases.build_s == 1.0
    assert measured.phases.measured_s == pytest.approx(sum(window.seconds for window in measured.windows))
    assert (measured.seed, measured.bytes_read, measured.epoch_samples) == (3, 5, 1000)
