"""What the parts of the overheads benchmark share: how much is measured, spreads, ratios, and their verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.ratios import ratio_interval
from autotune.spec import Interval

Entry = dict[str, Any]
"""One overhead as the document has it: `figure` in `unit` against `limit`, `reached`, and what it rests on."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured.

    Attributes:
        imports: Fresh interpreters for each import.
        records: Sizes of the two registries.
        calls: Calls of `best_loader` for each.
        epochs: Pairs of epochs of the two loaders.
        studies: Real studies, one after another.
        budget: Budget of each.
        tiles: Tiles of its data set.
        pairs: Pairs of runs with and without tracking.
        run_s: Longest time in windows of such a run.
        trials: Trials of the two Optuna studies.
        rounds: Trials that are added to each.
    """

    imports: int = 15
    records: tuple[int, int] = (10_000, 1_000_000)
    calls: int = 200
    epochs: int = 100
    studies: int = 3
    budget: str = "60s"
    tiles: int = 400
    pairs: int = 15
    run_s: float = 1.0
    trials: tuple[int, int] = (10, 1000)
    rounds: int = 20


FULL = Scale()
QUICK = Scale(
    imports=3,
    records=(500, 5000),
    calls=20,
    epochs=6,
    studies=1,
    budget="8s",
    tiles=24,
    pairs=3,
    run_s=0.3,
    trials=(10, 60),
    rounds=5,
)


def entry(
    figure: float,
    unit: str,
    *,
    limit: float | None,
    reached: bool | None,
    interval: Interval | None = None,
    **details: Any,
) -> Entry:
    """Put one overhead together.

    Args:
        figure: What was found.
        unit: Its unit; empty for a ratio.
        limit: What it may be at most; None where nothing is promised.
        reached: Whether it is within the limit; None where the runs cannot tell.
        interval: 95 % interval of the figure.
        **details: What it rests on.
    """
    shown = None if interval is None else {"low": interval.low, "high": interval.high}
    return {"figure": figure, "unit": unit, "limit": limit, "reached": reached, "interval": shown, **details}


def ratio_entry(above: Sequence[float], below: Sequence[float], *, limit: float, **details: Any) -> Entry:
    """Put a ratio of paired values together: it is within the limit when its whole interval is."""
    ratio = ratio_interval(above, below)
    if ratio is None:
        raise SystemExit(f"a ratio needs at least 2 pairs, got {len(above)}")
    return entry(ratio.mean, "", limit=limit, reached=within(ratio, limit), interval=ratio, pairs=len(above), **details)


def within(ratio: Interval, limit: float) -> bool | None:
    """Tell whether a ratio is at most a limit; None where the limit lies inside of its interval."""
    if ratio.high <= limit:
        return True
    return False if ratio.low > limit else None


def spread(values: Sequence[float]) -> Mapping[str, float]:
    """Give the median with the first and ninth decile, and the number of values."""
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    shown = {"median": statistics.median(values), "p10": tenths[0], "p90": tenths[-1]}
    return {**{name: round(value, 4) for name, value in shown.items()}, "runs": len(values)}
