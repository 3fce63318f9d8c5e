"""The page that holds two decisions of a study side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from autotune.registry import Registry
from autotune.service.pages.addresses import asked
from autotune.service.pages.rendering import page
from autotune.service.problems import not_found
from autotune.service.state import service_of
from autotune.spec import AccessToken, Decision, Interval, LoaderConfig
from autotune.tracking.report.verdict import chosen_facts, circumstances

_NOTHING = "–"
_MARGIN = 1.08
"""Factor that the common axis reaches beyond what it shows."""
_OWN = frozenset({"decided", "decision", "host"})
"""Circumstances that differ between any two decisions, and say nothing about whether they can be compared."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing about both.

    Attributes:
        label: What.
        a: About the first.
        b: About the second.
        differs: Whether that is not the same.
    """

    label: str
    a: str
    b: str
    differs: bool


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an interval lies on the axis that both share, in percent of its length."""

    low: float
    mean: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Both intervals on one logarithmic axis.

    Attributes:
        one: Where no change lies.
        a: The first interval.
        b: The second interval.
    """

    one: float
    a: Place
    b: Place


async def show_comparison(request: Request, visitor: AccessToken) -> Response:
    """Show two decisions side by side: configurations, what was measured, and under which circumstances."""
    service = service_of(request)
    keys = asked(request, "a"), asked(request, "b")

    def work() -> Response:
        a, b = (_decision(service.registry, key) for key in keys)
        groups = {
            "Configuration": _rows(_config_facts(a.config), _config_facts(b.config)),
            "Measured": _rows(dict(chosen_facts(a)[1:]), dict(chosen_facts(b)[1:])),
            "Circumstances": _rows(dict(circumstances(a)), dict(circumstances(b))),
        }
        return page(
            request, "comparison", title="Two decisions", visitor=visitor, part="studies", a=a, b=b, groups=groups,
            picture=picture_of(a.ratio, b.ratio), told=told_of(a, b, groups["Circumstances"]),
        )  # fmt: skip

    return await service.show(work)


def picture_of(a: Interval | None, b: Interval | None) -> Picture | None:
    """Lay two ratios out on one axis; None where one is missing or has no logarithm."""
    if a is None or b is None or not all(0 < one.low <= one.mean <= one.high < math.inf for one in (a, b)):
        return None
    left = math.log(min(1.0, a.low, b.low) / _MARGIN)
    length = math.log(max(1.0, a.high, b.high) * _MARGIN) - left

    def place(value: float) -> float:
        return round(100 * (math.log(value) - left) / length, 2)

    def laid(one: Interval) -> Place:
        return Place(low=place(one.low), mean=place(one.mean), high=place(one.high))

    return Picture(one=place(1.0), a=laid(a), b=laid(b))


def told_of(a: Decision, b: Decision, around: Sequence[Row]) -> list[str]:
    """Say how far the two can be compared: each ratio is over the PyTorch default within a run of its own."""
    told = []
    if a.config == b.config:
        told.append("Both have the same configuration; only the evidence differs.")
    other = [row.label for row in around if row.differs and row.label not in _OWN]
    if other:
        told.append(f"They were measured under different circumstances ({', '.join(other)}).")
    if a.default.batch_size != b.default.batch_size:
        told.append(
            f"Each ratio is over the default at its own batch size: {a.default.batch_size} and {b.default.batch_size}."
        )
    if a.ratio is not None and b.ratio is not None:
        apart = a.ratio.high < b.ratio.low or b.ratio.high < a.ratio.low
        found = "do not overlap" if apart else "overlap: these runs alone do not tell them apart"
        told.append(f"The intervals of their ratios to the PyTorch default {found}.")
    told.append("Each was measured against the default in a run of its own; autotune compare has two take turns.")
    return told


def _decision(registry: Registry, key: str) -> Decision:
    found = registry.decision(key) if key else None
    if found is None:
        raise not_found(f"There is no decision {key!r}; choose two on the page of a study.")
    return found


def _config_facts(config: LoaderConfig) -> dict[str, str]:
    values = config.model_dump(mode="json")
    return {name.replace("_", " "): _NOTHING if value is None else str(value) for name, value in values.items()}


def _rows(a: Mapping[str, str], b: Mapping[str, str]) -> list[Row]:
    return [
        Row(label=label, a=a.get(label, _NOTHING), b=b.get(label, _NOTHING), differs=a.get(label) != b.get(label))
        for label in dict.fromkeys([*a, *b])
    ]
