"""`OnlineLoader`: a loader that tries settings in its first epochs and keeps the best."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any

import torch
from torch.utils.data import DataLoader

from autotune.constants import ONLINE_GLANCES_MAX
from autotune.data.caches import CachedDataset
from autotune.data.stages import set_epoch
from autotune.errors import SpecError
from autotune.resolve.distributed import in_process_group
from autotune.resolve.online_clock import SegmentClock
from autotune.resolve.online_order import Feed, Order
from autotune.resolve.online_plan import Ask
from autotune.resolve.online_reading import Pass, Reading
from autotune.resolve.online_report import OnlineReport, TriedSegment
from autotune.resolve.online_setting import SAFE, SETTING_FIELDS, Setting
from autotune.resolve.online_stand_in import StandIn
from autotune.resolve.online_trial import Trial
from autotune.resolve.online_verdict import Verdict

_LOG = logging.getLogger(__name__)

TOGETHER = "processes that train together wait for each other in every step, so none can tell how fast it loads itself"
"""Why settings are not tried in distributed training."""


class OnlineLoader(StandIn):
    """Gives the batches of a plain loader, bit for bit and in its order, and finds out how they come fastest.

    In the first epochs, successive segments run under different settings, with what consumes the batches in between;
    the rest runs under the setting that this tells to be fastest. Each pass draws its order once, as the plain loader
    would. Where a setting fails, the batches that are missing are read in this process, and it is not used again.

    While settings are tried, what is read in this process is read from a copy of the dataset, so that no file is open
    in it when workers are forked. Workers end with a pass that is left early, which counts as an epoch; only the first
    two that somebody leaves before a segment has ended do not. In a pass inside another one nothing is tried.

    Args:
        plain: The resolved loader, which is taken apart and never iterated.
        trial: Asks for segments, given the resolved setting, the batches that there are, and those of one epoch; None
            tries nothing.
        epochs: Epochs in which settings are tried.
        worker_arguments: Arguments that torch takes with workers only.
        clock: Clock, in seconds.
    """

    def __init__(
        self,
        plain: DataLoader[Any],
        trial: Callable[[Setting, int, int], Trial] | None,
        *,
        epochs: int = 1,
        worker_arguments: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        super().__init__(plain)
        self._reading = Reading(plain, worker_arguments or {})
        self._epochs = epochs
        self._clock = clock
        self._base = setting_of(plain)
        self._filling = isinstance(plain.dataset, CachedDataset)
        self._tried: list[TriedSegment] = []
        self._left_out: Mapping[Setting, str] = {}
        self._seed: int | None = None
        self._epoch = 0
        self._skip = 0
        self._glances = 0
        self._running: Pass | None = None
        self._verdict: Verdict | None = None
        self._trial = self._prepared(trial)
        self._reading.forks = self._trial is not None

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
        left_out = tuple(f"{one.label()} is left out: {why}" for one, why in self._left_out.items())
        if verdict is None:
            return OnlineReport(base=self._base, setting=self._base, segments=tried, left_out=left_out)
        return OnlineReport(
            base=self._base,
            setting=verdict.setting,
            outcome=verdict.outcome,
            why=verdict.why,
            ratio=verdict.ratio,
            pairs=verdict.pairs,
            segments=tried,
            left_out=left_out,
        )

    def __iter__(self) -> Iterator[Any]:
        states = [generator.get_state() for generator in self._generators()]
        if self._seed is None or not self._plain.persistent_workers:  # as torch's loader, before its sampler draws
            drawn = torch.empty((), dtype=torch.int64).random_(generator=self._plain.generator)
            self._seed = int(drawn.item())
        batches = self._plain.sampler if self._plain.batch_sampler is None else self._plain.batch_sampler
        begun = Pass(epoch=self._epoch, order=Order(batches), seed=self._seed, states=states, position=self._skip)
        self._epoch += 1
        self._skip = 0
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
        """Give what a later run needs to go on behind the batch that was given last, under the setting found so far.

        While one pass is inside another, it is the outer one that is gone on with.

        Returns:
            `epoch` of the pass that is gone on with, `position` as the number of its batches that were given,
            `generators` with the states from before its order was drawn, and `setting`; None where none was found.
        """
        within = self._running
        states = [generator.get_state() for generator in self._generators()] if within is None else within.states
        return {
            "epoch": self._epoch if within is None else within.epoch,
            "position": self._skip if within is None else within.position,
            "generators": states,
            "setting": None if self._verdict is None else self._verdict.setting.model_dump(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken: the next pass begins behind the batch that was given last.

        What the state leaves out stays as it is, so `load_state_dict({"position": 120})` begins the next pass behind
        its 120th batch. Those before it are not read, and no segment counts them. A setting that was found is taken
        over; where none was, settings are tried anew in the epochs that are left.

        Raises:
            SpecError: The position is none of this loader's.
        """
        position = state.get("position", self._skip)
        self._check_position(position)
        for generator, was in zip(self._generators(), state.get("generators") or (), strict="generators" in state):
            generator.set_state(was)
        self._reading.let_go()
        self._running = None  # a pass that somebody still holds is not the one to go on with
        taker = self._epoch_taker()
        if taker is not None and "epoch" in state:
            taker.set_epoch(state["epoch"])
        self._epoch, self._skip = state.get("epoch", self._epoch), position
        if state.get("setting") is not None:
            setting = Setting.model_validate(state["setting"])
            if self._verdict is None or self._verdict.setting != setting:
                self._settle(Verdict(setting=setting, outcome="resumed", why="the run before this one had found it"))

    def _check_position(self, position: Any) -> None:
        batches = self._batches_told()
        whole = isinstance(position, int) and not isinstance(position, bool) and position >= 0
        if not whole or (batches is not None and position > batches):
            most = "" if batches is None else f" and at most the {batches} batches of this loader"
            raise SpecError(
                f"position must be a whole number from 0 on{most}, got {position!r}; "
                "go on with the data and the batch size that the state was taken with"
            )

    def _prepared(self, trial: Callable[[Setting, int, int], Trial] | None) -> Trial | None:
        batches = self._batches_told()
        if batches is None:
            why = "the sampler tells no length, so segments cannot be planned"
            self._settle(Verdict(setting=self._base, outcome="undecided", why=why))
            return None
        made = None if trial is None else trial(self._base, self._epochs * batches, batches)
        if made is None or made.verdict is None:
            self._left_out = {} if made is None else made.left_out
            return made
        self._settle(made.verdict)
        return None

    def _batches(self, this: Pass) -> Iterator[Any]:
        outer = self._running is None  # nothing is tried in a pass inside another one
        if outer:
            self._running = this
        began, whole = this.position, False
        try:
            this.order.begin(skipped=began)
            if outer:
                yield from self._trying(this)
            yield from self._rest(this)
            whole = True
        finally:
            if self._running is this:
                self._running = None
                self._end_filling(whole=whole and not began)
                if not whole:
                    self._reading.let_go()

    def _trying(self, this: Pass) -> Iterator[Any]:
        """Run segments for as long as settings are to be tried and the epoch has batches for one."""
        trial = self._trial
        if trial is None or self._filling:  # while a cache is filled is no time to measure
            return
        if in_process_group():  # which may have begun since the loader was made
            trial.end(Verdict(setting=self._base, outcome="undecided", why=TOGETHER))
            self._settle_by(trial)
            return
        batches, tried, glance = len(self._plain), len(self._tried), True
        trial.keep_within(self._epochs * batches - this.position)
        try:
            while trial is self._trial and trial.ask is not None:
                if batches - this.position < (trial.ask.most or trial.ask.fewest):
                    break
                yield from self._segment(this, trial, trial.ask)
            glance = False
        finally:
            if glance and len(self._tried) == tried and self._glances < ONLINE_GLANCES_MAX:
                self._glances += 1
            else:
                self._end_epoch(trial)

    def _end_epoch(self, trial: Trial) -> None:
        """Count an epoch in which settings were tried, however it ended."""
        self._epochs -= 1
        if self._epochs <= 0 and trial.ask is not None:
            trial.stop()
        self._settle_by(trial)

    def _end_filling(self, *, whole: bool) -> None:
        """Take note that a cache is filled by a whole pass, or will not be, as passes are left early."""
        if whole or self._glances >= ONLINE_GLANCES_MAX:
            self._filling = False
        elif self._filling:
            self._glances += 1

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
        if self._trial is None and self._running is this:
            segment = self._reading.rest(this, setting)
        else:  # more will be tried in the next epoch, or the workers that are kept serve another pass
            segment = self._reading.part(this, setting, Feed(this.order))
        yield from self._reading.given(this, segment)
        if segment.failure is not None:
            why = f"{setting.label()} failed: {segment.failure}"
            self._settle(Verdict(setting=SAFE, outcome="fallback", why=why))
            yield from self._reading.given(this, self._reading.part(this, SAFE, Feed(this.order)))

    def _note(self, tried: TriedSegment) -> None:
        self._tried.append(tried)
        _LOG.log(logging.INFO if tried.failure is None else logging.WARNING, "%s", tried)

    def _settle_by(self, trial: Trial) -> None:
        """Take over the verdict of a trial, where there is one and nothing else was settled meanwhile."""
        if trial is self._trial and trial.verdict is not None:
            self._settle(trial.verdict)

    def _settle(self, verdict: Verdict) -> None:
        self._verdict = verdict
        self._trial = None
        self._reading.forks = False
        for line in self.report.left_out:
            _LOG.info("%s", line)
        _LOG.log(logging.WARNING if verdict.outcome == "fallback" else logging.INFO, "%s", self.report.decision())


def setting_of(loader: DataLoader[Any]) -> Setting:
    """Give the setting that a DataLoader has."""
    fields = {name: getattr(loader, name) for name in SETTING_FIELDS}
    return Setting.model_validate(fields).canonical(has_accelerator=torch.accelerator.is_available())


def _synchronize() -> None:
    """Wait for the accelerator, where this process uses one."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        with suppress(RuntimeError):
            torch.cuda.synchronize()


__all__ = ["TOGETHER", "OnlineLoader", "setting_of"]
