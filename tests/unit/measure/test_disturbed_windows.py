"""What must not reach the rate: queues that filled meanwhile, disturbed epochs, loaders that give once."""

import pytest

from autotune.measure.limits import MeasurementStoppedError
from autotune.measure.throughput import Plan, measure_throughput

BATCH, BATCH_S, QUEUE = 10, 0.02, 8


class Prefetching:
    """A loader with a queue, on a clock of its own: workers go on while an edge is read.

    Args:
        batches: Batches of an epoch.
        edge_s: Seconds that reading an edge takes.
        queue: Batches that may be ready.
        slow: Edges after which the next window is disturbed: twice as slow, by others.
        passes: Passes that give something.
    """

    def __init__(self, batches, *, edge_s=0.0, queue=QUEUE, slow=(), passes=None):
        self.batches, self.edge_s, self.queue, self.slow, self.passes = batches, edge_s, queue, slow, passes
        self.now_s, self.idle_s, self.edges = 0.0, 0.0, 0

    def clock(self):
        return self.now_s

    def __iter__(self):
        if self.passes is not None:
            self.passes -= 1
        self.idle_s = 0.0
        for place in range(self.batches if self.passes is None or self.passes >= 0 else 0):
            needed_s = BATCH_S * (2 if self.edges in self.slow else 1)
            ready_s = min(self.idle_s, needed_s)
            self.idle_s -= ready_s
            self.now_s += needed_s - ready_s + 1e-6
            yield place

    def before_pass(self):
        pass

    def begin_window(self):
        pass

    def after_batch(self):
        pass

    def own_cpu_s(self):
        return None

    def synchronise(self):
        pass

    def end_window(self):
        self.now_s += self.edge_s
        self.idle_s = min(self.idle_s + self.edge_s, self.queue * BATCH_S)
        self.edges += 1
        return 1.0 if self.edges - 1 in self.slow else 0.0

    def measure(self, **plan):
        return measure_throughput(
            self, consume=lambda _: None, count=lambda *_: BATCH, around=self, clock=self.clock,
            plan=Plan(time_cap_s=2.0, warm_batches=self.queue, **plan),
        )  # fmt: skip


@pytest.mark.parametrize("edge_s", [0.03, 0.1, 1.0])
def test_batches_that_were_prefetched_between_windows_do_not_flatter_them(edge_s):
    found = Prefetching(10_000, edge_s=edge_s).measure(epoch_samples=100_000)
    rates = [window.samples / window.seconds for window in found.windows]
    assert rates == pytest.approx([BATCH / BATCH_S] * len(rates), rel=0.04)


def test_an_epoch_that_was_set_aside_is_left_out_of_a_subsets_score():
    calm = Prefetching(20, queue=2).measure(epoch_samples=100_000)
    disturbed = Prefetching(20, queue=2, slow=(3, 4)).measure(epoch_samples=100_000)
    assert calm.whole_epochs
    assert sum(window.set_aside for window in disturbed.windows) == 2
    assert disturbed.samples_per_s == pytest.approx(calm.samples_per_s)


def test_a_loader_that_gives_its_samples_only_once_is_empty_with_the_way_out():
    with pytest.raises(MeasurementStoppedError, match=r"begin anew at each iter\(\)") as caught:
        Prefetching(20, queue=2, passes=1).measure()
    assert caught.value.failure.kind == "empty"
