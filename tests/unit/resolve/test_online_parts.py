"""The order of a pass and its parts, and the times of a segment on a clock that the test turns."""

from itertools import chain

import pytest
import torch

from autotune.resolve.online_clock import SegmentClock
from autotune.resolve.online_order import Feed, Order
from autotune.resolve.online_plan import Ask
from autotune.resolve.online_report import OnlineReport, TriedSegment
from autotune.resolve.online_setting import SAFE, Setting

TWO = Setting(num_workers=2, prefetch_factor=2)


def batches(count):
    return [[2 * number, 2 * number + 1] for number in range(count)]


def test_parts_of_an_order_follow_each_other_and_give_each_batch_once():
    order = Order(batches(7))
    parts = [list(Feed(order, most=most)) for most in (2, 1, None)]
    assert list(chain.from_iterable(parts)) == batches(7)
    assert [len(part) for part in parts] == [2, 1, 4]


def test_what_was_taken_and_not_delivered_comes_again_first_and_in_order():
    order = Order(batches(6))
    feed = Feed(order, most=4)
    taken = iter(feed)
    assert [next(taken) for _ in range(3)] == batches(3)
    assert feed.delivered() == 2
    assert feed.take_back() == 2
    assert list(order) == batches(6)[1:]


def test_nothing_is_drawn_before_the_pass_begins_and_skipped_batches_are_not_given():
    drawn = []

    def drawing():
        drawn.append(True)
        yield from batches(5)

    class Batches:
        def __iter__(self):
            return drawing()

    order = Order(Batches())
    assert not drawn
    order.begin(skipped=2)
    assert drawn
    assert list(order) == batches(5)[2:]


def test_a_closed_part_gives_no_more():
    feed = Feed(Order(batches(5)))
    taken = iter(feed)
    next(taken)
    feed.close()
    assert list(taken) == []
    assert len(feed.pending) == 1


def test_an_order_may_be_empty():
    order = Order([])
    order.begin(skipped=3)
    assert list(Feed(order)) == []


class Turned:
    """A clock that the test turns."""

    def __init__(self):
        self.now_s = 0.0
        self.synchronized = 0

    def __call__(self):
        return self.now_s

    def synchronize(self):
        self.synchronized += 1


def run(ask, waits_s, *, steps_s, start_s=0.0, count=100):
    """Play a segment as its loader and consumer would; give its clock and the clock that was turned."""
    now, feed = Turned(), Feed(Order(batches(count)), most=ask.most)
    clock = SegmentClock(ask, feed, now, now.synchronize)
    clock.begin()
    now.now_s += start_s
    source = iter(feed)
    for _ in range(ask.tail):  # workers have so many in work from the start
        next(source, None)
    number = 0
    while True:
        clock.wait()
        if not ask.tail:
            next(source, None)
        if not feed.pending:
            break
        now.now_s += waits_s(number)
        clock.arrive(feed.delivered(), [0.0])
        if ask.tail:
            next(source, None)
        now.now_s += steps_s(number)
        number += 1
    clock.end()
    return clock, now


def test_the_window_leaves_out_the_filled_and_the_drained_queue():
    ask = Ask(setting=TWO, window_batches=10)
    inside = range(4, 14)
    clock, now = run(
        ask, lambda number: 0.3 if number in inside else 0.0, steps_s=lambda number: 0.1 if number in inside else 9.0
    )
    shown = clock.seen()
    assert clock.batches == 18
    assert shown.batches == 10
    assert shown.samples_per_s == pytest.approx(2 / 0.4)
    assert shown.wait_share == pytest.approx(0.75)
    assert now.synchronized == 2


def test_without_workers_the_window_is_all_but_the_first_batch():
    clock, _ = run(Ask(setting=SAFE, window_batches=5), lambda number: 0.0 if number else 8.0, steps_s=lambda _: 0.5)
    assert (clock.batches, clock.seen().batches) == (6, 5)
    assert clock.seen().samples_per_s == pytest.approx(4.0)


def test_a_window_without_fixed_batches_lasts_as_long_as_asked_for():
    clock, _ = run(Ask(setting=TWO, window_s=1.0), lambda _: 0.06, steps_s=lambda _: 0.07)
    assert clock.seen().batches == 8
    slow, _ = run(Ask(setting=SAFE, window_s=1.0), lambda _: 3.0, steps_s=lambda _: 0.0)
    assert slow.seen().batches == 4


def test_an_epoch_that_ends_too_soon_gives_no_measurement():
    clock, _ = run(Ask(setting=TWO, window_batches=10), lambda _: 0.1, steps_s=lambda _: 0.1, count=9)
    assert clock.batches == 9
    assert clock.seen() is None


def test_a_segment_far_behind_is_cut_short():
    ask = Ask(setting=TWO, window_batches=50, give_up_below=6.0)
    clock, _ = run(ask, lambda _: 0.4, steps_s=lambda _: 0.1)
    assert clock.seen().futile
    assert clock.batches == 4 + 4 + ask.tail
    starting, _ = run(ask, lambda number: 2.0 if number < 3 else 0.1, steps_s=lambda _: 0.1)
    assert not starting.seen().futile
    going, _ = run(ask, lambda _: 0.1, steps_s=lambda _: 0.1)
    assert not going.seen().futile


def test_starting_and_ending_workers_is_the_cost_of_changing():
    clock, _ = run(
        Ask(setting=TWO, window_batches=4), lambda number: 0.0 if number else 2.0, steps_s=lambda _: 0.5, start_s=1.0
    )
    assert clock.switching_s == pytest.approx(3.0)
    assert clock.seconds == pytest.approx(3.0 + 12 * 0.5)


def test_the_bytes_of_the_largest_batch_are_told():
    clock = SegmentClock(Ask(setting=SAFE, window_batches=1), Feed(Order(batches(9))), Turned(), lambda: None)
    for batch in ([0.0], [torch.zeros(3, 4), torch.zeros(2)], torch.zeros(5), [0.0], [0.0]):
        clock.wait()
        clock.arrive(2, batch)
    clock.wait()
    assert clock.seen().batch_bytes == 14 * 4


def tried(**fields):
    given = {"epoch": 0, "setting": TWO, "batches": 18, "seconds": 2.0, "switching_s": 0.25, **fields}
    return TriedSegment(**given)


def test_a_report_says_every_segment_and_the_decision_in_words():
    report = OnlineReport(
        base=SAFE,
        setting=TWO,
        outcome="gain",
        why="it is faster",
        segments=(
            tried(samples_per_s=100.0, wait_share=0.25),
            tried(given_up=True, samples_per_s=1.0, wait_share=0.9),
            tried(failure="RuntimeError: no memory"),
        ),
        left_out=("4 workers, prefetch 2 is left out: no memory",),
    )
    lines = str(report).splitlines()
    assert len(lines) == 5
    assert "2 workers, prefetch 2: 18 batches in 2 s, 250 ms of it for changing; 100 samples/s, waiting 25%" in lines[0]
    assert lines[1].endswith("given up")
    assert lines[2].endswith("failed: RuntimeError: no memory")
    assert lines[3] == "4 workers, prefetch 2 is left out: no memory"
    assert lines[4] == ("gain: 2 workers, prefetch 2 (it is faster); 3 segments, changing settings took 750 ms of 6 s")
    assert (report.switching_s, report.tried_s) == (0.75, 6.0)
    assert OnlineReport.from_json(report.to_json()) == report


def test_a_report_without_segments_says_so():
    assert str(OnlineReport(base=SAFE, setting=SAFE)) == "still trying: 0 workers (settings are still tried)"
