"""What the parts of the growth benchmark share: sizes, rounds, and the verdict on how a cost grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from overheads_figures import Entry, ratio_entry, spread

GROWTH_LIMIT = 2.0
"""What the largest size may cost over the smallest, for each step or member."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured.

    Attributes:
        trials: Trials of the studies.
        tracked: Trials that MLflow is told of by the product; the others are copies of these in its database.
        steps: Trials that are added to each.
        asks: Those of them that the sampler proposes.
        records: Records of the registries.
        calls: Calls for each of them.
        members: Members of the archives.
        builds: How often each archive is built.
        opens: Fresh processes that open each of them.
        workers: Workers of each.
    """

    trials: tuple[int, ...] = (10, 1_000, 10_000)
    tracked: int = 10
    steps: int = 50
    asks: int = 10
    records: tuple[int, ...] = (10, 10_000, 1_000_000)
    calls: int = 200
    members: tuple[int, ...] = (1_000, 100_000, 1_000_000)
    builds: int = 3
    opens: int = 7
    workers: int = 4


FULL = Scale()
QUICK = Scale(
    trials=(10, 40, 160),
    steps=4,
    asks=2,
    records=(10, 100, 1_000),
    calls=5,
    members=(100, 1_000, 10_000),
    builds=2,
    opens=2,
    workers=2,
)


def growth(values: Mapping[int, Sequence[float]], *, unit: str) -> Entry:
    """Hold the cost at the largest size against that at the smallest: values were taken in turns, and are paired."""
    sizes = sorted(values)
    first, last = values[sizes[0]], values[sizes[-1]]
    by_size = {str(size): spread(values[size]) for size in sizes}
    return ratio_entry(last, first, limit=GROWTH_LIMIT, sizes=sizes, by_size=by_size, by_size_unit=unit)


def course(values: Mapping[int, Sequence[float]], *, unit: str) -> Entry:
    """Put a cost together by size where no growth is promised."""
    sizes = sorted(values)
    by_size = {str(size): spread(values[size]) for size in sizes}
    return {
        "figure": by_size[str(sizes[-1])]["median"],
        "unit": unit,
        "limit": None,
        "reached": None,
        "interval": None,
        "sizes": sizes,
        "by_size": by_size,
        "by_size_unit": unit,
    }
