"""The loop that pulls batches through windows until the rate is known well enough.

Where an epoch is short, a window is whole epochs, from `iter()` to exhaustion. Otherwise windows
lie inside epochs, after the batches that were prefetched before anybody asked, and the way there
(the ramp) is measured apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal, Protocol

from autotune.constants import (
    CONTENTION_REPEATS,
    CONTENTION_SHARE,
    WINDOW_MIN_BATCHES,
    WINDOW_MIN_S,
    WINDOWS_MIN,
)
from autotune.measure.limits import check_delivered, check_holds_samples
from autotune.measure.scoring import Stretch, excess_s, mean_ramp_s, rate_after_ramp, score
from autotune.measure.window import counted, is_futile, is_precise, is_unsteady, rate_interval
from autotune.spec import Window

_EXTENSION_SHARE = 0.5
"""How much longer an unsteady run may measure, as a share of the time cap: enough to see whether it was a blip."""
_RAMP_MATTERS_SHARE = 0.01
"""Share of an epoch from which a ramp with worker start is measured again without it."""

Stopped = Literal["precise", "time_cap", "futility"]


class Surroundings(Protocol):
    """What goes on around the loop; only `after_batch` is called inside windows."""

    def before_pass(self) -> None:
        """Prepare for a pass over the dataset (evict its files, where the question is a cold one)."""

    def begin_window(self) -> None:
        """Take the state at the start of a window."""

    def after_batch(self) -> None:
        """Check memory cheaply; raises `MeasurementStoppedError`."""

    def end_window(self) -> float | None:
        """Check memory thoroughly; give the CPU time of others as a share of one core."""

    def own_cpu_s(self) -> float | None:
        """Give the CPU time that the loading process and its workers took in the last window; None is unknown."""

    def synchronise(self) -> None:
        """Wait until the device has done its work."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a measurement goes by.

    Attributes:
        time_cap_s: Longest time in windows.
        warm_batches: Batches of a pass before its windows begin (the prefilled queue).
        epoch_samples: Samples of a full epoch; None is unknown until an epoch ended.
        incumbent_samples_per_s: Best rate so far; None turns futility off.
        persistent_workers: Whether workers outlive an epoch, so that their start is no part of the next.
        whole_epochs_grouped: Whether short epochs may share a window (not where each is prepared for).
    """

    time_cap_s: float
    warm_batches: int = 1
    epoch_samples: int | None = None
    incumbent_samples_per_s: float | None = None
    persistent_workers: bool = False
    whole_epochs_grouped: bool = True


@dataclass(kw_only=True)
class Throughput:
    """What the loop found; see `autotune.spec.Measurement` for the fields."""

    windows: list[Window] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    whole_epochs: bool = False
    stopped: Stopped = "time_cap"
    unsteady: bool = False
    first_batch_s: float = 0.0
    ramp_s: float = 0.0
    samples_per_s: float = 0.0
    delivered_samples: int = 0
    exhausted: bool = False


class _Pass:
    """One pass over the loader, from `iter()` on."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self.delivered = 0
        self.batches = 0
        self.started_s = run.clock()
        self._iterator: Iterator[Any] = iter(run.loader)
        self._asked_s = self.started_s  # `iter()` itself is waiting too
        self.first_batch_s = 0.0

    def pull(self, stretch: Stretch) -> bool:
        """Take one batch into a stretch; False at the end of the epoch."""
        run = self._run
        try:
            batch = next(self._iterator)
        except StopIteration:
            return False
        received_s = run.clock()
        wait_s = received_s - self._asked_s
        if not self.batches:
            self.first_batch_s = received_s - self.started_s
        samples = run.count(batch, self.delivered)
        run.consume(batch)
        run.around.after_batch()
        del batch
        self.delivered += samples
        self.batches += 1
        stretch.samples += samples
        stretch.batches += 1
        stretch.wait_s += wait_s
        run.waits_s.append(wait_s)
        self._asked_s = run.clock()
        return True

    @property
    def idle_s(self) -> float:
        """Seconds since the last batch was done, or the last edge."""
        return self._run.clock() - self._asked_s

    def pause(self) -> float:
        """Synchronise and read the clock at a window's edge."""
        self._run.around.synchronise()
        self._asked_s = self._run.clock()
        return self._asked_s


class _Run:
    """State of one measurement."""

    def __init__(
        self,
        loader: Iterable[Any],
        *,
        consume: Callable[[Any], object],
        count: Callable[[Any, int], int],
        plan: Plan,
        around: Surroundings,
        clock: Callable[[], float],
    ) -> None:
        self.loader, self.consume, self.count = loader, consume, count
        self.plan, self.around, self.clock = plan, around, clock
        self.found = Throughput()
        self.waits_s: list[float] = []
        self._cap_s = plan.time_cap_s
        self._extended_from_s: float | None = None
        self._ramps: list[Stretch] = []
        self._rests: list[Stretch] = []

    def measure(self) -> Throughput:
        """Measure until the rate is known, or the time is over."""
        if self._interior_windows():
            self._whole_epochs()
        self._conclude()
        return self.found

    # Windows inside epochs

    def _interior_windows(self) -> bool:
        """Measure inside epochs; True when epochs turn out to be short enough to be windows themselves."""
        while True:
            batches, ramp = self._begin_pass()
            windows = len(self.found.windows)
            self._ramps.append(ramp)
            while self._interior_window(batches):
                if self._finished():
                    self._measure_restart()
                    return False
            self._end_pass(batches)
            short = self.clock() - batches.started_s - batches.first_batch_s <= self._cap_s / WINDOWS_MIN
            if short or len(self.found.windows) == windows:
                return True

    def _begin_pass(self) -> tuple[_Pass, Stretch]:
        self.around.before_pass()
        self.around.begin_window()
        self.around.synchronise()
        batches = _Pass(self)
        ramp = Stretch()
        while ramp.batches < self.plan.warm_batches and batches.pull(ramp):
            pass
        ramp.seconds = batches.pause() - batches.started_s
        if not self.found.first_batch_s:
            self.found.first_batch_s = batches.first_batch_s
        self.around.end_window()
        return batches, ramp

    def _interior_window(self, batches: _Pass) -> bool:
        """Measure one window; False when the epoch ended before it was long enough."""
        self._catch_up(batches)
        self.waits_s = []
        self.around.begin_window()
        stretch, started_s = Stretch(), batches.pause()
        while batches.pull(stretch):
            stretch.seconds = self.clock() - started_s
            if _long_enough(stretch, self._cap_s):
                stretch.seconds = batches.pause() - started_s
                self._keep(stretch)
                return True
        self.around.end_window()
        return False

    def _catch_up(self, batches: _Pass) -> None:
        """Take what was prefetched while the edge was read: it would make the window look fast, by up to 20 %."""
        idle_s, made = batches.idle_s, self.plan.warm_batches
        if self.found.windows:
            last = self.found.windows[-1]
            made = min(made, round(idle_s * last.batches / last.seconds))
        taken = Stretch()
        while idle_s and taken.batches < made and batches.pull(taken):
            pass

    def _end_pass(self, batches: _Pass) -> None:
        check_delivered(batches.delivered)
        self.found.exhausted = True
        self.found.delivered_samples = max(self.found.delivered_samples, batches.delivered)

    # Windows of whole epochs

    def _whole_epochs(self) -> None:
        self.found.whole_epochs = True
        self.found.windows.clear()
        self.found.waits_s.clear()
        self._ramps.clear()
        self._cap_s, self._extended_from_s = self.plan.time_cap_s, None
        while not self.found.windows or not self._finished():
            self.waits_s = []
            whole, ramps, rests = self._epochs()
            if self._keep(whole):
                self._ramps += ramps
                self._rests += rests

    def _epochs(self) -> tuple[Stretch, list[Stretch], list[Stretch]]:
        """Measure one window of at least one whole epoch; give it with the ramps and the rests of its epochs."""
        whole = Stretch()
        ramps: list[Stretch] = []
        rests: list[Stretch] = []
        self.around.before_pass()
        self.around.begin_window()
        self.around.synchronise()
        started_s = self.clock()
        while True:
            batches = _Pass(self)
            ramp, rest = Stretch(), Stretch()
            while ramp.batches < self.plan.warm_batches and batches.pull(ramp):
                pass
            ramp.seconds = self.clock() - batches.started_s
            while batches.pull(rest):
                pass
            ended_s = batches.pause()
            rest.seconds = ended_s - batches.started_s - ramp.seconds
            ramps.append(ramp)
            rests.append(rest)
            whole.add(ramp)
            whole.add(rest)
            self._end_pass(batches)
            whole.seconds = ended_s - started_s
            if whole.seconds >= WINDOW_MIN_S or not self.plan.whole_epochs_grouped:
                return whole, ramps, rests

    # Stopping

    def _keep(self, stretch: Stretch) -> bool:
        """Close a window: judge whether it was disturbed, and file it; False when it was set aside."""
        others = self.around.end_window()
        check_holds_samples(stretch.samples, stretch.batches)
        windows = self.found.windows
        disturbed = _is_disturbed(others)
        aside = disturbed and sum(window.set_aside for window in windows) < CONTENTION_REPEATS
        windows.append(
            Window(
                seconds=stretch.seconds,
                samples=stretch.samples,
                batches=stretch.batches,
                wait_s=min(stretch.wait_s, stretch.seconds),
                cpu_s=self.around.own_cpu_s(),
                cpu_by_others_share=others,
                set_aside=aside,
            )
        )
        if not aside:
            self.found.waits_s += self.waits_s
        return not aside

    def _finished(self) -> bool:
        windows = counted(self.found.windows)
        if not windows:
            return False
        spent_s = sum(window.seconds for window in windows)
        # kept for want of better ones, disturbed windows say how fast the others let it be, not how fast it is
        if is_futile(
            [window for window in windows if not _is_disturbed(window.cpu_by_others_share)],
            self.plan.incumbent_samples_per_s,
        ):
            self.found.stopped = "futility"
            return True
        if self._extended_from_s is not None and spent_s - self._extended_from_s < self._extension_s:
            return False
        over = spent_s >= self._cap_s and (len(windows) > 1 or spent_s >= 2 * self._cap_s)
        if not over and not is_precise(windows):
            return False
        if is_unsteady(windows) and self._extended_from_s is None:
            self._extended_from_s = spent_s
            self._cap_s += self._extension_s
            return False
        self.found.stopped = "precise" if is_precise(windows) else "time_cap"
        return True

    @property
    def _extension_s(self) -> float:
        return _EXTENSION_SHARE * self.plan.time_cap_s

    # Ramp and score

    def _measure_restart(self) -> None:
        """Measure the ramp without worker start, where workers persist and their start would weigh."""
        epoch, steady = self.plan.epoch_samples, rate_interval(counted(self.found.windows)).mean
        if len(self._ramps) > 1 or not self.plan.persistent_workers or epoch is None:
            return
        if self.found.stopped == "futility" or excess_s(self._ramps[0], steady) < _RAMP_MATTERS_SHARE * epoch / steady:
            return
        _, ramp = self._begin_pass()
        ramp.samples *= 2  # as many again were on their way when the pass was broken off, and were dropped
        self._ramps.append(ramp)

    def _conclude(self) -> None:
        """Fill in what follows from windows and ramps; the first ramp inside epochs counts only if it is alone."""
        found = self.found
        windows = counted(found.windows)
        if not windows:
            return
        found.unsteady = is_unsteady(windows)
        if found.whole_epochs:
            steady, ramps = rate_after_ramp(self._rests), self._ramps
        else:
            steady, ramps = rate_interval(windows).mean, self._ramps[1:] or self._ramps
        found.ramp_s = mean_ramp_s(ramps, steady)
        delivered = found.delivered_samples if found.exhausted else None
        epoch = self.plan.epoch_samples or delivered
        found.samples_per_s = score(
            windows,
            steady_samples_per_s=steady,
            ramp_s=found.ramp_s,
            epoch_samples=None if found.whole_epochs and epoch == delivered else epoch,
        )


def measure_throughput(
    loader: Iterable[Any],
    *,
    consume: Callable[[Any], object],
    count: Callable[[Any, int], int],
    plan: Plan,
    around: Surroundings,
    clock: Callable[[], float] = perf_counter,
) -> Throughput:
    """Measure how many samples per second pass through a loader and its consumer.

    Args:
        loader: Any iterable of batches that can be passed over again.
        consume: Takes each batch.
        count: Gives the samples of a batch, from it and the samples delivered before in its epoch.
        plan: What the measurement goes by.
        around: What goes on around it.
        clock: Monotonic clock in seconds.

    Raises:
        MeasurementStoppedError: A limit was passed.
    """
    return _Run(loader, consume=consume, count=count, plan=plan, around=around, clock=clock).measure()


def _long_enough(stretch: Stretch, cap_s: float) -> bool:
    if stretch.seconds >= cap_s:
        return True
    return stretch.seconds >= WINDOW_MIN_S and stretch.batches >= WINDOW_MIN_BATCHES


def _is_disturbed(cpu_by_others_share: float | None) -> bool:
    return cpu_by_others_share is not None and cpu_by_others_share > CONTENTION_SHARE
