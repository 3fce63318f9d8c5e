"""Which setting the next segment runs under, until there is a decision. No clock, no process, no loader."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace

from autotune.constants import CONFIRM_PAIRS_MIN, DATA_WAIT_TARGET_SHARE, FUTILITY_SHARE
from autotune.resolve.online_plan import Ask, Plan
from autotune.resolve.online_setting import SAFE, Setting
from autotune.resolve.online_verdict import Block, Seen, Verdict, finalists, judge

_TOO_FEW = "the epochs in which settings may be tried have too few batches to tell settings apart"


class Trial:
    """Asks for segments one after the other, is told what they showed, and decides.

    First the resolved setting is looked at: where it keeps the consumer waiting for less than the target share, and
    does so in a second window, that is all. Then every other setting runs one segment, the fastest and the cheapest
    near it go on to blocks with the resolved one, in random order forwards and backwards, and the pairs in them decide.
    How many blocks there are is fixed before the first: an interval that is looked at until it suits is too narrow.
    Who fails in a block, or is far behind the resolved setting there, is out, whatever it showed before.

    Args:
        base: The resolved setting.
        rivals: What is tried beside it, the most promising first; those that the batches do not pay for are left out.
        batches: Batches that segments may have, over all epochs in which settings are tried.
        epoch_batches: Batches of one epoch, which each segment runs within; None is all of them in one.
        segments: Most segments; None is as many as it takes.
        segment_batches: Batches of each window; None is what the resolved setting loads in half a second, or more.
        seed: Seed of the order.
        refuses: Says why there is no memory for a setting, given the bytes of a batch; None where there is. It is asked
            before each segment.

    Attributes:
        ask: The segment that is to run; None once there is a verdict.
        verdict: The decision; None before.
        failed: Settings that failed, with the reason.
        left_out: Settings that there is no memory for, with the reason.
    """

    def __init__(
        self,
        base: Setting,
        rivals: Iterable[Setting],
        *,
        batches: int,
        epoch_batches: int | None = None,
        segments: int | None = None,
        segment_batches: int | None = None,
        seed: int = 0,
        refuses: Callable[[Setting, int], str | None] = lambda *_: None,
    ) -> None:
        self.base = base
        self.failed: dict[Setting, str] = {}
        self.left_out: dict[Setting, str] = {}
        self.ask: Ask | None = None
        self.verdict: Verdict | None = None
        self._rivals = list(rivals)
        self._refuses = refuses
        self._plan = Plan(
            base, batches=batches, epoch_batches=epoch_batches, segments=segments, window_batches=segment_batches
        )
        self._random = random.Random(seed)  # noqa: S311 (no secret)
        self._batch_bytes = 0
        self._challengers: list[Setting] = []
        self._given_up: set[Setting] = set()
        self._blocks: list[Block] = []
        self._story = self._run()
        self._advance(None)

    def tell(self, seen: Seen | None, *, batches: int) -> None:
        """Tell what the segment that was asked for showed, and go on.

        Args:
            seen: What it showed; None where it was too short to show anything.
            batches: Batches that it took.
        """
        self._plan.spend(batches)
        if seen is not None:
            self._batch_bytes = max(self._batch_bytes, seen.batch_bytes)
        self._advance(seen)

    def keep_within(self, batches: int) -> None:
        """Take note that no more batches than these are left for segments."""
        self._plan.keep_within(batches)

    def fail(self, why: str, *, batches: int) -> None:
        """Strike out the setting that was asked for, and those that take at least as many workers."""
        if self.ask is None:
            return
        setting = self.ask.setting
        self.failed[setting] = why
        if setting == self.base:
            self.end(Verdict(setting=SAFE, outcome="fallback", why=f"{setting.label()} failed: {why}"))
            return
        for other in self._rivals:
            if other.num_workers >= setting.num_workers > 0 and other not in self.failed:
                self.failed[other] = f"{setting.label()} failed"
        self.tell(None, batches=batches)

    def end(self, verdict: Verdict) -> None:
        """Take a verdict from outside, where no further segment can run."""
        self.ask = None
        self.verdict = verdict

    def stop(self) -> None:
        """End it where the epochs end: blocks that are whole decide where they are enough, else nothing changes."""
        if len(self._blocks) < CONFIRM_PAIRS_MIN:
            self.end(self._too_few())
            return
        verdict = self._judged()
        why = f"{verdict.why}; the epochs for it ended after {len(self._blocks)} blocks of segments"
        self.end(replace(verdict, why=why))

    def _advance(self, seen: Seen | None) -> None:
        try:
            self.ask = self._story.send(seen)
        except StopIteration as ended:
            self.end(ended.value)

    def _run(self) -> Generator[Ask, Seen | None, Verdict]:
        look = yield from self._calm_or_look()
        if isinstance(look, Verdict):
            return look
        fitting = self._fitting(self._rivals)
        rivals = self._plan.affordable(fitting, looked_batches=look.batches) if fitting else []
        if not rivals:
            return self._too_few() if fitting else self._nothing_to_try()
        chosen = (rivals, None) if len(rivals) == 1 else (yield from self._chosen(rivals, look))
        if isinstance(chosen, Verdict):
            return chosen
        challengers, gain = chosen
        if self._plan.blocks(challengers, gain) < CONFIRM_PAIRS_MIN:
            challengers = challengers[:1]  # the batches pay for the fastest alone
        count = self._plan.blocks(challengers, gain)
        if count < CONFIRM_PAIRS_MIN:
            return self._too_few()
        self._challengers = challengers
        yield from self._confirmed(count, screened=gain is not None)
        return self._judged()

    def _calm_or_look(self) -> Generator[Ask, Seen | None, Seen | Verdict]:
        """Look at the resolved setting; where hardly anything is waited for in two windows, that is the verdict."""
        if not self._rivals:
            return self._nothing_to_try()
        first = look = yield from self._looked()
        if first is not None and first.wait_share <= DATA_WAIT_TARGET_SHARE:
            look = yield from self._looked()  # one window may have been a lull
        if first is None or look is None:
            return self._too_few()
        if look.wait_share > DATA_WAIT_TARGET_SHARE:
            return look
        most = max(first.wait_share, look.wait_share)
        why = (
            f"in two windows at most {most:.1%} of the time goes into waiting for batches: faster loading buys nothing"
        )
        return Verdict(setting=self.base, outcome="nothing_to_gain", why=why)

    def _chosen(
        self, rivals: Sequence[Setting], look: Seen
    ) -> Generator[Ask, Seen | None, tuple[list[Setting], float] | Verdict]:
        """Run a segment of each, and give who goes on to blocks, with the ratio that the first of them showed."""
        screened = yield from self._screened(rivals, look)
        challengers = finalists(look, screened)
        if screened and not challengers:  # the first look may have been lucky, or everything be slower since
            again = yield from self._looked()
            if again is None:
                return self._too_few()
            look, challengers = again, finalists(again, [replace(one, futile=False) for one in screened])
        if not challengers:
            return self._nothing_near()
        rates = {one.setting: one.samples_per_s for one in screened}
        return challengers, rates[challengers[0]] / look.samples_per_s

    def _looked(self) -> Generator[Ask, Seen | None, Seen | None]:
        """Run a segment of the resolved setting; None where no further one may run, or it was too short."""
        if self._plan.is_used_up:
            return None
        return (yield Ask(setting=self.base, window_batches=self._plan.window_batches))

    def _screened(self, rivals: Sequence[Setting], look: Seen) -> Generator[Ask, Seen | None, list[Seen]]:
        screened: list[Seen] = []
        for setting in self._random.sample(rivals, len(rivals)):
            if self._fitting([setting]):
                best = max(one.samples_per_s for one in [look, *screened])
                seen = yield self._asked(setting, beside=best)
                if seen is not None:
                    screened.append(seen)
        return screened

    def _confirmed(self, count: int, *, screened: bool) -> Generator[Ask, Seen | None, None]:
        order: list[Setting] = []
        for number in range(count):
            going = self._going()
            if number % 2:
                order.reverse()
            elif number or screened:
                order = self._random.sample([self.base, *going], len(going) + 1)
            else:  # nobody knows yet how slow they may be: the resolved one runs first, so that they can be given up
                order = [self.base, *self._random.sample(going, len(going))]
            self._blocks.append((yield from self._block(order)))

    def _block(self, order: Sequence[Setting]) -> Generator[Ask, Seen | None, Block]:
        block: dict[Setting, Seen] = {}
        for setting in order:
            going = self._fitting(self._going())
            if not going or (setting != self.base and setting not in going):
                continue
            base = block.get(self.base)
            seen = yield self._asked(setting, beside=None if base is None else base.samples_per_s)
            if seen is not None and seen.futile:
                self._given_up.add(setting)
            elif seen is not None:
                block[setting] = seen
        return block

    def _judged(self) -> Verdict:
        going = self._going()
        if going:
            return judge(self._blocks, self.base, going)
        fates = [f"{one.label()} {self._fate(one)}" for one in self._challengers]
        why = f"{'; '.join(fates)}, in the segments that were to decide"
        return Verdict(setting=self.base, outcome="undecided", why=why)

    def _fate(self, setting: Setting) -> str:
        if setting in self.failed:
            return f"failed ({self.failed[setting]})"
        return "was far behind" if setting in self._given_up else f"was left out ({self.left_out[setting]})"

    def _going(self) -> list[Setting]:
        """Give the challengers that neither failed nor were given up or left out."""
        out = self.failed.keys() | self.left_out.keys() | self._given_up
        return [one for one in self._challengers if one not in out]

    def _fitting(self, settings: Sequence[Setting]) -> list[Setting]:
        """Give those that did not fail and that there is memory for now, and strike out the others."""
        for setting in settings:
            why = None if setting in self.left_out else self._refuses(setting, self._batch_bytes)
            if why is not None:
                self.left_out[setting] = why
        return [one for one in settings if one not in self.failed and one not in self.left_out]

    def _asked(self, setting: Setting, *, beside: float | None) -> Ask:
        """Ask for a segment, which is given up where it is far behind a rate in samples/s that was measured beside."""
        give_up = None if setting == self.base or beside is None else FUTILITY_SHARE * beside
        return Ask(setting=setting, window_batches=self._plan.window_batches, give_up_below=give_up)

    def _too_few(self) -> Verdict:
        return Verdict(setting=self.base, outcome="undecided", why=_TOO_FEW)

    def _nothing_to_try(self) -> Verdict:
        why = "there is no other setting to try" + (" that memory has room for" if self.left_out else "")
        return Verdict(setting=self.base, outcome="nothing_to_gain", why=why)

    def _nothing_near(self) -> Verdict:
        why = f"no other setting came near {self.base.label()}"
        if self.failed:
            why += f"; {', '.join(one.label() for one in self.failed)} failed"
        return Verdict(setting=self.base, outcome="nothing_to_gain", why=why)


__all__ = ["Trial"]
