"""`OnlineLoader`: a loader that tries settings in its first epochs and keeps the best."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any

import torch
from torch.utils.data import DataLoader

from autotune.data.caches import CachedDataset
from autotune.data.stages import set_epoch
from autotune.resolve.online_clock import SegmentClock
from autotune.resolve.online_order import Feed, Order
from autotune.resolve.online_reading import Pass, Reading
from autotune.resolve.online_report import OnlineReport, TriedSegment
from autotune.resolve.online_setting import SAFE, SETTING_FIELDS, Setting
from autotune.resolve.online_trial import Ask, Trial
from autotune.resolve.online_verdict import Verdict

_LOG = logging.getLogger(__name__)


class OnlineLoader:
    """Gives the batches of a plain loader, bit for bit and in its order, and finds out how they come fastest.

    In the first epochs, successive segments run under different settings, with what consumes the batches in between;
    the rest runs under the setting that this tells to be fastest. Each pass draws its order once, as the plain loader
    would. Where a setting fails, the batches that are missing are read in this process, and it is not used again.

    While settings are tried, what is read in this process is read from a copy of the dataset, so that no file is open
    in it when workers are forked. Workers end with a pass that is left early.

    Args:
        plain: The resolved loader, which is taken apart and never iterated.
        trial: Asks for segments, given the resolved setting and the batches that there are; None tries nothing.
        epochs: Epochs in which settings are tried.
        worker_arguments: Arguments that torch takes with workers only.
        clock: Clock, in seconds.
    """

    def __init__(
        self,
        plain: DataLoader[Any],
        trial: Callable[[Setting, int], Trial] | None,
        *,
        epochs: int = 1,
        worker_arguments: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._plain = plain
        self._reading = Reading(plain, worker_arguments or {})
        self._epochs = epochs
        self._clock = clock
        self._base = setting_of(plain)
        self._filling = isinstance(plain.dataset, CachedDataset)
        self._tried: list[TriedSegment] = []
        self._seed: int | None = None
        self._epoch = 0
        self._skip = 0
        self._current: Pass | None = None
        self._running: Pass | None = None
        self._verdict: Verdict | None = None
        self._trial = self._prepared(trial)
        self._reading.forks = self._trial is not None

    @property
    def dataset(self) -> Any:
        """The dataset, with archive and cache inside it."""
        return self._plain.dataset

    @property
    def batch_size(self) -> int | None:
        """Samples in a batch; None with a batch sampler of the caller's."""
        return self._plain.batch_size

    @property
    def sampler(self) -> Any:
        """What gives the order."""
        return self._plain.sampler

    @property
    def batch_sampler(self) -> Any:
        """What gives the batches of indices."""
        return self._plain.batch_sampler

    @property
    def drop_last(self) -> bool:
        """Whether the last, smaller batch is dropped."""
        return self._plain.drop_last

    @property
    def generator(self) -> Any:
        """What the order is drawn from."""
        return self._plain.generator

    @property
    def collate_fn(self) -> Any:
        """What makes a batch of a list of samples."""
        return self._plain.collate_fn

    @property
    def setting(self) -> Setting:
        """The setting that batches are loaded with between segments, and from the decision on."""
        return self._base if self._verdict is None else self._verdict.setting

    @property
    def num_workers(self) -> int:
        """Worker processes of `setting`."""
        return self.setting.num_workers

    @property
    def prefetch_factor(self) -> int | None:
        """Batches that each worker of `setting` keeps ready."""
        return self.setting.prefetch_factor

    @property
    def pin_memory(self) -> bool:
        """Whether batches are page-locked with `setting`."""
        return self.setting.pin_memory

    @property
    def report(self) -> OnlineReport:
        """What was tried so far, what it cost, and what it came to."""
        verdict, tried = self._verdict, tuple(self._tried)
        if verdict is None:
            return OnlineReport(base=self._base, setting=self._base, segments=tried)
        return OnlineReport(
            base=self._base,
            setting=verdict.setting,
            outcome=verdict.outcome,
            why=verdict.why,
            ratio=verdict.ratio,
            pairs=verdict.pairs,
            segments=tried,
        )

    def __len__(self) -> int:
        return len(self._plain)

    def __iter__(self) -> Iterator[Any]:
        states = [generator.get_state() for generator in self._generators()]
        if self._seed is None or not self._plain.persistent_workers:  # as torch's loader, before its sampler draws
            drawn = torch.empty((), dtype=torch.int64).random_(generator=self._plain.generator)
            self._seed = int(drawn.item())
        batches = self._plain.sampler if self._plain.batch_sampler is None else self._plain.batch_sampler
        begun = Pass(epoch=self._epoch, order=Order(batches), seed=self._seed, states=states, position=self._skip)
        self._epoch += 1
        self._skip = 0
        self._current = begun
        return self._batches(begun)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, of augmentation and of orders that are drawn from it, of the pass that begins next.

        Later ones go on from it. It reaches the sampler, or the dataset where the sampler takes none.
        """
        self._epoch = epoch
        taker = self._epoch_taker()
        if taker is None:
            set_epoch(self._plain.dataset, epoch)
        else:
            taker.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Give what a later run needs to go on behind the batch that was given last, under the setting found so far."""
        within = self._current if self._current is not None and self._current is self._running else None
        states = [generator.get_state() for generator in self._generators()] if within is None else within.states
        return {
            "epoch": self._epoch if within is None else within.epoch,
            "position": self._skip if within is None else within.position,
            "generators": states,
            "setting": None if self._verdict is None else self._verdict.setting.model_dump(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken: the next pass begins behind the batch that was given last.

        A setting that was found is taken over; where none was, settings are tried anew in the epochs that are left.
        """
        for generator, was in zip(self._generators(), state["generators"], strict=True):
            generator.set_state(was)
        self._reading.let_go()
        taker = self._epoch_taker()
        if taker is not None:
            taker.set_epoch(state["epoch"])
        self._epoch, self._skip = state["epoch"], state["position"]
        if state["setting"] is not None:
            setting = Setting.model_validate(state["setting"])
            self._settle(Verdict(setting=setting, outcome="resumed", why="the run before this one had found it"))

    def _prepared(self, trial: Callable[[Setting, int], Trial] | None) -> Trial | None:
        try:
            batches = len(self._plain)
        except (TypeError, NotImplementedError):
            why = "the sampler tells no length, so segments cannot be planned"
            self._settle(Verdict(setting=self._base, outcome="undecided", why=why))
            return None
        made = None if trial is None else trial(self._base, self._epochs * batches)
        if made is not None and made.verdict is not None:
            self._settle(made.verdict)
            return None
        return made

    def _batches(self, this: Pass) -> Iterator[Any]:
        if self._running is not None:  # a pass inside another one: nothing is tried in it
            this.order.begin(skipped=this.position)
            yield from self._reading.given(this, self._reading.part(this, self.setting, Feed(this.order)))
            return
        self._running = this
        done = False
        try:
            this.order.begin(skipped=this.position)
            yield from self._trying(this)
            yield from self._rest(this)
            done = True
        finally:
            self._running = None
            if not done:
                self._reading.let_go()
            elif self._current is this:
                self._current = None

    def _trying(self, this: Pass) -> Iterator[Any]:
        """Run segments for as long as settings are to be tried and the epoch has batches for one."""
        trial = self._trial
        if trial is None:
            return
        if self._filling:  # a cache is filled in the first epoch, which is no time to measure
            self._filling = False
            return
        while trial.ask is not None:
            left = len(self._plain) - this.position
            if left < (trial.ask.most or trial.ask.fewest):
                trial.pass_over(left)
                break
            yield from self._segment(this, trial, trial.ask)
        self._epochs -= 1
        if self._epochs <= 0 and trial.ask is not None:
            trial.stop("the epochs in which settings may be tried have too few batches to tell settings apart")
        if trial.verdict is not None:
            self._settle(trial.verdict)

    def _segment(self, this: Pass, trial: Trial, ask: Ask) -> Iterator[Any]:
        feed = Feed(this.order, most=ask.most)
        clock = SegmentClock(ask, feed, self._clock, _synchronize)
        segment = self._reading.part(this, ask.setting, feed, clock=clock)
        yield from self._reading.given(this, segment)
        seen = clock.seen() if segment.failure is None else None
        self._note(
            TriedSegment(
                epoch=this.epoch,
                setting=ask.setting,
                batches=clock.batches,
                seconds=clock.seconds,
                switching_s=clock.switching_s,
                samples_per_s=None if seen is None else seen.samples_per_s,
                wait_share=None if seen is None else seen.wait_share,
                given_up=seen is not None and seen.futile,
                failure=segment.failure,
            )
        )
        if segment.failure is None:
            trial.tell(seen, batches=clock.batches)
        else:
            trial.fail(segment.failure, batches=clock.batches + segment.missing)

    def _rest(self, this: Pass) -> Iterator[Any]:
        """Read what is left of the epoch under the present setting."""
        setting = self.setting
        if self._trial is None:
            segment = self._reading.rest(this, setting)
        else:  # more will be tried in the next epoch
            segment = self._reading.part(this, setting, Feed(this.order))
        yield from self._reading.given(this, segment)
        if segment.failure is not None:
            why = f"{setting.label()} failed: {segment.failure}"
            self._settle(Verdict(setting=SAFE, outcome="fallback", why=why))
            yield from self._reading.given(this, self._reading.part(this, SAFE, Feed(this.order)))

    def _note(self, tried: TriedSegment) -> None:
        self._tried.append(tried)
        _LOG.log(logging.INFO if tried.failure is None else logging.WARNING, "%s", tried)

    def _settle(self, verdict: Verdict) -> None:
        self._verdict = verdict
        self._trial = None
        self._reading.forks = False
        _LOG.log(logging.WARNING if verdict.outcome == "fallback" else logging.INFO, "%s", self.report.decision())

    def _epoch_taker(self) -> Any:
        """Give the sampler that epochs are set on; None where neither takes any."""
        samplers: list[Any] = [self._plain.sampler, self._plain.batch_sampler]
        return next((one for one in samplers if callable(getattr(one, "set_epoch", None))), None)

    def _generators(self) -> list[torch.Generator]:
        """Give what orders are drawn from: the loader's generator, and the sampler's where it has one of its own."""
        found = [self._plain.generator, getattr(self._plain.sampler, "generator", None)]
        distinct = {id(one): one for one in found if isinstance(one, torch.Generator)}
        return list(distinct.values())


def setting_of(loader: DataLoader[Any]) -> Setting:
    """Give the setting that a DataLoader has."""
    fields = {name: getattr(loader, name) for name in SETTING_FIELDS}
    return Setting.model_validate(fields).canonical(has_accelerator=torch.accelerator.is_available())


def _synchronize() -> None:
    """Wait for the accelerator, where this process uses one."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        with suppress(RuntimeError):
            torch.cuda.synchronize()


__all__ = ["OnlineLoader", "setting_of"]
