"""Nothing to gain, before anything is searched: the default is shown to reach what no loader can exceed."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.constants import HEADROOM_PAIRS, HEADROOM_REACHED_SHARE, HEADROOM_WORTH_SHOWING_SHARE
from autotune.ratios import ratio_interval
from autotune.spec import Failure, Interval, LoaderConfig
from autotune.study.guesses import Guesses
from autotune.study.runs import Runs


@dataclass(frozen=True, kw_only=True)
class AtBound:
    """The evidence.

    Attributes:
        default: PyTorch's default at the batch size with the highest bound.
        share: Its rate over the bound, paired.
        rates: Its rates in samples/s.
        bounds: The bounds that were measured beside them.
        peak_bytes: Its peak of device memory.
    """

    default: LoaderConfig
    share: Interval
    rates: tuple[float, ...]
    bounds: tuple[float, ...]
    peak_bytes: int | None


def default_at_bound(runs: Runs, guesses: Guesses) -> AtBound | None:
    """Show that the default reaches the bound, by pairs of fresh processes; None where it cannot be shown.

    On several machines it is left to the search: rate and bound of a pair could be those of two machines.
    The batch size is the one at which the bound is highest, so that no other one can gain anything, either.
    """
    setting = runs.setting
    bounds = guesses.bounds()
    if not bounds or not _on_one_machine(runs):
        return None
    accelerated = setting.inspection.machine.has_accelerator
    # of bounds that are alike the smallest batch is wanted: it costs the least memory
    size = min(size for size in bounds if bounds[size] >= max(bounds.values()) * HEADROOM_REACHED_SHARE**0.5)
    default = LoaderConfig.torch_default(size).canonical(has_accelerator=accelerated)
    if guesses.rates.get(default, 0.0) < HEADROOM_WORTH_SHOWING_SHARE * bounds[size]:
        return None
    return _shown(runs, default)


def _shown(runs: Runs, default: LoaderConfig) -> AtBound | None:
    rates, bounds, peaks = [], [], [0]
    for _ in range(HEADROOM_PAIRS):
        record = runs.run(default, "confirm")
        probed = runs.probe((default.batch_size,))
        bound = None if isinstance(probed, Failure) else probed.bound(default.batch_size)
        if record.measurement is None or bound is None or not _on_one_machine(runs):
            return None
        rates.append(record.measurement.samples_per_s)
        bounds.append(bound)
        peaks.append(record.measurement.memory.device_peak_bytes or 0)
    share = ratio_interval(rates, bounds)
    if share is None or share.low < HEADROOM_REACHED_SHARE or runs.run(default, "verify").measurement is None:
        return None
    if not _on_one_machine(runs):
        return None
    return AtBound(
        default=default, share=share, rates=tuple(rates), bounds=tuple(bounds), peak_bytes=max(peaks) or None
    )


def _on_one_machine(runs: Runs) -> bool:
    """Whether one machine measured all there is until now: others may join at any time, or take its place."""
    return runs.capacity == 1 and len(runs.hosts) <= 1
