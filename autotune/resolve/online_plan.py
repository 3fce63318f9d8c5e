"""What the batches of an epoch pay for: how long segments are, which settings run in them, and how often."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autotune.constants import (
    CONFIRM_PAIRS_MAX,
    CONFIRM_PAIRS_MIN,
    ONLINE_BLOCKS_WANTED,
    ONLINE_WINDOW_S,
    ONLINE_WINDOWS_LONGER,
    RUN_TO_RUN_SHARE,
    WINDOW_MIN_BATCHES,
)
from autotune.ratios import pairs_to_resolve
from autotune.resolve.online_setting import Setting


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


class Plan:
    """Keeps account of the batches and segments that are left, and says what they pay for.

    A segment runs within one epoch: what is left at the end of one pays for none that is longer.

    Args:
        base: The resolved setting.
        batches: Batches that segments may have, over all epochs in which settings are tried.
        epoch_batches: Batches of one epoch; None is all of them in one.
        segments: Most segments; None is as many as it takes.
        window_batches: Batches of each window; None is what the first look found, or more.

    Attributes:
        window_batches: Batches of the windows; None while they are not known.
    """

    def __init__(
        self,
        base: Setting,
        *,
        batches: int,
        epoch_batches: int | None = None,
        segments: int | None,
        window_batches: int | None,
    ) -> None:
        self.window_batches = window_batches
        self._base = base
        self._batches = batches
        self._epoch_batches = max(1, batches if epoch_batches is None else epoch_batches)
        self._segments = segments
        self._fixed = window_batches is not None

    @property
    def is_used_up(self) -> bool:
        """Whether no further segment may run."""
        return self._segments is not None and self._segments <= 0

    def spend(self, batches: int) -> None:
        """Take off a segment, with the batches that it took."""
        self._batches -= batches
        if self._segments is not None:
            self._segments -= 1

    def keep_within(self, batches: int) -> None:
        """Take note that no more than these are left: epochs end, and some are left early."""
        self._batches = min(self._batches, batches)

    def affordable(self, rivals: Sequence[Setting], *, looked_batches: int) -> list[Setting]:
        """Fix the batches of windows, and give the rivals that the rest of the batches pays for.

        Args:
            rivals: What is to be tried, the most promising first; the last ones are left out.
            looked_batches: Batches that the resolved setting had in its window.
        """
        shortest = self.window_batches = self.window_batches or max(WINDOW_MIN_BATCHES, looked_batches)
        for longer in ONLINE_WINDOWS_LONGER if rivals and not self._fixed else ():
            self.window_batches = longer * shortest
            if self._fit(self._pieces(rivals, ONLINE_BLOCKS_WANTED), self._batches // 2):
                return self._within(rivals)
        self.window_batches = shortest
        return self._within(rivals)

    def blocks(self, challengers: Sequence[Setting], gain: float | None) -> int:
        """Fix how many blocks are run: as many as tell the gain that was seen, within what the batches pay for.

        Args:
            challengers: What runs in each block beside the resolved setting.
            gain: Ratio that one segment showed; None where there was none.
        """
        size = sum(self._batches_of(one) for one in [self._base, *challengers])
        whole, rest = divmod(self._batches, self._epoch_batches)
        paid = whole * (self._epoch_batches // size) + rest // size
        if self._segments is not None:
            paid = min(paid, self._segments // (1 + len(challengers)))
        wanted = ONLINE_BLOCKS_WANTED
        if gain is not None:
            few, many = CONFIRM_PAIRS_MIN, CONFIRM_PAIRS_MAX
            wanted = pairs_to_resolve(gain, noise=RUN_TO_RUN_SHARE, fewest=few, most=many)
        return min(wanted, paid)

    def _within(self, rivals: Sequence[Setting]) -> list[Setting]:
        base = self._batches_of(self._base)
        # one whose pair is longer than an epoch would be waited for in every one of them, and keep others from running
        pairable = [one for one in rivals if base + self._batches_of(one) <= self._epoch_batches]
        for count in range(len(pairable), 0, -1):
            first = pairable[:count]
            segments = (count if count > 1 else 0) + 2 * CONFIRM_PAIRS_MIN
            affordable = self._segments is None or segments <= self._segments
            if affordable and self._fit(self._pieces(first, CONFIRM_PAIRS_MIN), self._batches):
                return first
        return []

    def _pieces(self, rivals: Sequence[Setting], blocks: int) -> list[int]:
        """Give the batches of the segments and pairs of trying these settings, if the costliest comes to the blocks."""
        each = [self._batches_of(one) for one in rivals]
        return (each if len(each) > 1 else []) + [self._batches_of(self._base) + max(each)] * blocks

    def _fit(self, pieces: Iterable[int], batches: int) -> bool:
        """Tell whether batches pay for pieces in this order: the rest of an epoch, then whole ones."""
        whole, rest = divmod(batches, self._epoch_batches)
        for piece in pieces:
            if piece > rest:
                whole, rest = whole - 1, self._epoch_batches
            if whole < 0 or piece > rest:
                return False
            rest -= piece
        return True

    def _batches_of(self, setting: Setting) -> int:
        return Ask(setting=setting, window_batches=self.window_batches).most or 0


__all__ = ["Ask", "Plan"]
