"""Which setting the next segment runs under, until there is a decision. No clock, no process, no loader."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

from autotune.constants import (
    CONFIRM_PAIRS_MAX,
    CONFIRM_PAIRS_MIN,
    DATA_WAIT_TARGET_SHARE,
    FUTILITY_SHARE,
    ONLINE_BLOCKS_WANTED,
    ONLINE_WINDOW_S,
    ONLINE_WINDOWS_LONGER,
    RUN_TO_RUN_SHARE,
    WINDOW_MIN_BATCHES,
)
from autotune.ratios import pairs_to_resolve
from autotune.resolve.online_setting import SAFE, Setting
from autotune.resolve.online_verdict import Block, Seen, Verdict, finalists, judge


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One segment that is to run.

    Attributes:
        setting: Its setting.
        window_batches: Batches of its window; None measures for `window_s`.
        window_s: Shortest window where the batches are not known.
        give_up_below: Rate in samples/s under which the segment is cut short; None never is.
    """

    setting: Setting
    window_batches: int | None = None
    window_s: float = ONLINE_WINDOW_S
    give_up_below: float | None = None

    @property
    def lead(self) -> int:
        """Batches before the window: as many as the queue takes, which make the first ones look fast."""
        return max(1, self.setting.in_flight)

    @property
    def tail(self) -> int:
        """Batches after the window, while which workers make no further ones."""
        return self.setting.in_flight

    @property
    def fewest(self) -> int:
        """Batches without which nothing is told."""
        return self.lead + min(self.window_batches or WINDOW_MIN_BATCHES, WINDOW_MIN_BATCHES) + self.tail

    @property
    def most(self) -> int | None:
        """Batches of the whole segment; None where time ends it."""
        return None if self.window_batches is None else self.lead + self.rounded(self.window_batches) + self.tail

    def rounded(self, batches: int) -> int:
        """Round up to whole turns of the workers, who finish their batches at about the same time."""
        turn = max(1, self.setting.num_workers)
        return -(-batches // turn) * turn


class Trial:
    """Asks for segments one after the other, is told what they showed, and decides.

    First the resolved setting is looked at: where it keeps the consumer waiting for less than the target share, that is
    all. Then every other setting runs one segment, the fastest and the cheapest near it go on to blocks with the
    resolved one, in random order forwards and backwards, and the pairs in them decide. How many blocks there are
    is fixed before the first: an interval that is looked at until it suits is too narrow.

    Args:
        base: The resolved setting.
        rivals: What is tried beside it, the most promising first; those that the batches do not pay for are left out.
        batches: Batches that segments may have, over all epochs in which settings are tried.
        segments: Most segments; None is as many as it takes.
        segment_batches: Batches of each window; None is what the resolved setting loads in half a second, or more.
        seed: Seed of the order.

    Attributes:
        ask: The segment that is to run; None once there is a verdict.
        verdict: The decision; None before.
        failed: Settings that failed, with the reason.
    """

    def __init__(
        self,
        base: Setting,
        rivals: Iterable[Setting],
        *,
        batches: int,
        segments: int | None = None,
        segment_batches: int | None = None,
        seed: int = 0,
    ) -> None:
        self.base = base
        self.failed: dict[Setting, str] = {}
        self.ask: Ask | None = None
        self.verdict: Verdict | None = None
        self._rivals = list(rivals)
        self._batches = batches
        self._segments = segments
        self._window = segment_batches
        self._fixed = segment_batches is not None
        self._random = random.Random(seed)  # noqa: S311 (no secret)
        self._incumbent_samples_per_s = 0.0
        self._story = self._run()
        self._advance(None)

    def tell(self, seen: Seen | None, *, batches: int) -> None:
        """Tell what the segment that was asked for showed, and go on.

        Args:
            seen: What it showed; None where it was too short to show anything.
            batches: Batches that it took.
        """
        self._batches -= batches
        if self._segments is not None:
            self._segments -= 1
        self._advance(seen)

    def pass_over(self, batches: int) -> None:
        """Leave out batches at the end of an epoch that are too few for the segment that was asked for."""
        self._batches -= batches

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

    def stop(self, why: str) -> None:
        """Go on with the resolved setting, as nothing more can be measured."""
        self.end(Verdict(setting=self.base, outcome="undecided", why=why))

    def _advance(self, seen: Seen | None) -> None:
        try:
            self.ask = self._story.send(seen)
        except StopIteration as ended:
            self.end(ended.value)

    def _run(self) -> Generator[Ask, Seen | None, Verdict]:
        if not self._rivals:
            return Verdict(setting=self.base, outcome="nothing_to_gain", why="there is no other setting to try")
        look = yield Ask(setting=self.base, window_batches=self._window)
        if look is None:
            return self._too_few()
        if look.wait_share <= DATA_WAIT_TARGET_SHARE:
            waits = f"{look.wait_share:.1%} of the time goes into waiting for batches"
            return Verdict(setting=self.base, outcome="nothing_to_gain", why=f"{waits}: faster loading buys nothing")
        self._incumbent_samples_per_s = look.samples_per_s
        rivals = self._plan(look.batches)
        if not rivals:
            return self._too_few()
        challengers, gain = rivals, None
        if len(rivals) > 1:
            screened = yield from self._screened(rivals)
            challengers = finalists(look, screened)
            self._incumbent_samples_per_s = look.samples_per_s  # who got so far is measured against that alone
            rates = {one.setting: one.samples_per_s for one in screened}
            gain = rates[challengers[0]] / look.samples_per_s if challengers else None
        if not challengers:
            return self._nothing_near()
        if self._block_count(challengers, gain) < CONFIRM_PAIRS_MIN:
            challengers = challengers[:1]  # the batches pay for the fastest alone
        blocks = yield from self._blocks(challengers, self._block_count(challengers, gain))
        return judge(blocks, self.base, challengers)

    def _screened(self, rivals: Sequence[Setting]) -> Generator[Ask, Seen | None, list[Seen]]:
        screened = []
        for setting in self._random.sample(rivals, len(rivals)):
            if setting not in self.failed:
                seen = yield self._asked(setting)
                if seen is not None:
                    screened.append(seen)
                    self._incumbent_samples_per_s = max(self._incumbent_samples_per_s, seen.samples_per_s)
        return screened

    def _blocks(self, challengers: Sequence[Setting], count: int) -> Generator[Ask, Seen | None, list[Block]]:
        blocks: list[Block] = []
        going = [one for one in challengers if one not in self.failed]
        order: list[Setting] = []
        for number in range(count):
            order = order[::-1] if number % 2 else self._random.sample([self.base, *going], len(going) + 1)
            block: dict[Setting, Seen] = {}
            for setting in order:
                if not going or (setting != self.base and setting not in going):
                    continue
                seen = yield self._asked(setting)
                if seen is not None and not seen.futile:
                    block[setting] = seen
                dropped = setting if seen is not None and seen.futile else None
                going = [one for one in going if one != dropped and one not in self.failed]
            blocks.append(block)
        return blocks

    def _asked(self, setting: Setting) -> Ask:
        give_up = None if setting == self.base else FUTILITY_SHARE * self._incumbent_samples_per_s
        return Ask(setting=setting, window_batches=self._window, give_up_below=give_up)

    def _plan(self, looked_batches: int) -> list[Setting]:
        """Fix the batches of windows, and give the rivals that the rest of the batches pays for."""
        self._window = self._window or max(WINDOW_MIN_BATCHES, looked_batches)
        shortest = self._window
        for longer in () if self._fixed else ONLINE_WINDOWS_LONGER:
            self._window = longer * shortest
            if 2 * self._needed(self._rivals, ONLINE_BLOCKS_WANTED) <= self._batches:
                return self._within(self._rivals)
        self._window = shortest
        return self._within(self._rivals)

    def _within(self, rivals: Sequence[Setting]) -> list[Setting]:
        for count in range(len(rivals), 0, -1):
            first = list(rivals[:count])
            segments = (count if count > 1 else 0) + 2 * CONFIRM_PAIRS_MIN
            affordable = self._segments is None or segments <= self._segments
            if affordable and self._needed(first, CONFIRM_PAIRS_MIN) <= self._batches:
                return first
        return []

    def _needed(self, rivals: Sequence[Setting], blocks: int) -> int:
        """Give the batches that it takes to try these settings, if the costliest of them comes to the blocks."""
        each = [self._batches_of(one) for one in rivals]
        return (sum(each) if len(each) > 1 else 0) + blocks * (self._batches_of(self.base) + max(each))

    def _block_count(self, challengers: Sequence[Setting], gain: float | None) -> int:
        """Fix how many blocks are run: as many as tell the gain that was seen, within what the batches pay for."""
        paid = self._batches // sum(self._batches_of(one) for one in [self.base, *challengers])
        if self._segments is not None:
            paid = min(paid, self._segments // (1 + len(challengers)))
        wanted = ONLINE_BLOCKS_WANTED
        if gain is not None:
            few, many = CONFIRM_PAIRS_MIN, CONFIRM_PAIRS_MAX
            wanted = pairs_to_resolve(gain, noise=RUN_TO_RUN_SHARE, fewest=few, most=many)
        return min(wanted, paid)

    def _batches_of(self, setting: Setting) -> int:
        return self._asked(setting).most or 0

    def _too_few(self) -> Verdict:
        why = "the epochs in which settings may be tried have too few batches to tell settings apart"
        return Verdict(setting=self.base, outcome="undecided", why=why)

    def _nothing_near(self) -> Verdict:
        why = f"no other setting came near {self.base.label()}"
        if self.failed:
            why += f"; {', '.join(one.label() for one in self.failed)} failed"
        return Verdict(setting=self.base, outcome="nothing_to_gain", why=why)


__all__ = ["Ask", "Trial"]
