"""Pins: fields that the caller fixes. They always win; the rest is the best that is known with them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from autotune.constants import RACE_BLOCKS_MIN, RACE_MARGIN_SHARE
from autotune.errors import SpecError
from autotune.registry import Measured
from autotune.spec import STORED_FORMS, LoaderConfig
from autotune.spec.base import first_message
from autotune.spec.config import STREAMING_FORMATS

PIN_NAMES = tuple(LoaderConfig.model_fields)
"""What can be pinned: every field of a configuration."""
_SIDE_BY_SIDE = ("race", "confirm")
"""Phases whose runs are interleaved with those of other configurations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BestMeasured:
    """The fastest configuration among measured ones.

    Attributes:
        config: The configuration.
        samples_per_s: Median of its runs.
        runs: Number of runs.
    """

    config: LoaderConfig
    samples_per_s: float
    runs: int


def checked_pins(pins: Mapping[str, Any]) -> dict[str, Any]:
    """Give the pins that fix something; None leaves a field to the resolver.

    Raises:
        SpecError: A name is no field, or the pins contradict each other.
    """
    unknown = sorted(set(pins) - set(PIN_NAMES))
    if unknown:
        raise SpecError(f"a pin is one of {', '.join(PIN_NAMES)}, got {', '.join(unknown)}")
    fixed = {name: value for name, value in pins.items() if value is not None}
    with_pins(LoaderConfig(), fixed)
    return fixed


def with_pins(config: LoaderConfig, pins: Mapping[str, Any]) -> LoaderConfig:
    """Give a configuration with the pinned fields replaced, and those that contradict them let go.

    Raises:
        SpecError: The pins contradict each other.
    """
    fields = {**config.model_dump(), **pins}
    needs_worker = bool(pins.get("prefetch_factor") or pins.get("persistent_workers"))
    if fields["num_workers"] == 0 and needs_worker and "num_workers" not in pins:
        fields["num_workers"] = 1
    if fields["num_workers"] == 0:
        fields["prefetch_factor"] = pins.get("prefetch_factor")
        fields["persistent_workers"] = pins.get("persistent_workers")
    _settle_order(fields, pins)
    if fields["cache"] == "none":
        fields["cache_fraction"] = pins.get("cache_fraction")
    _settle_form(fields, pins)
    try:
        return LoaderConfig.model_validate(fields)
    except ValidationError as error:
        raise SpecError(first_message(error)) from error


def unmet_pins(config: LoaderConfig, pins: Mapping[str, Any], *, has_accelerator: bool) -> dict[str, Any]:
    """Give the pins, in canonical form, where they change how a configuration behaves; else nothing."""
    pinned = with_pins(config, pins).canonical(has_accelerator=has_accelerator)
    if pinned == config.canonical(has_accelerator=has_accelerator):
        return {}
    values = {name: getattr(pinned, name) for name in pins}
    return {name: value for name, value in values.items() if value is not None}


def best_measured(measured: Iterable[Measured]) -> BestMeasured | None:
    """Give the configuration with the highest median rate; None where nothing was measured.

    Runs side by side count for more than the search's, the highest of which flatters itself: where one that raced
    comes within the margin of the race, it wins.
    """
    rates: dict[LoaderConfig, list[Measured]] = {}
    for one in measured:
        rates.setdefault(one.config, []).append(one)
    found = [_typical(rates[config]) for config in sorted(rates, key=LoaderConfig.to_json, reverse=True)]
    if not found:
        return None
    best = max(found, key=lambda one: one.samples_per_s)
    repeated = [one for one in found if one.runs >= RACE_BLOCKS_MIN]
    if not repeated:
        return best
    raced = max(repeated, key=lambda one: one.samples_per_s)
    return raced if raced.samples_per_s >= best.samples_per_s * (1 - RACE_MARGIN_SHARE) else best


def _typical(runs: Sequence[Measured]) -> BestMeasured:
    """Give the median of a configuration: of its runs side by side, where there are enough of them."""
    beside = [one for one in runs if one.phase in _SIDE_BY_SIDE]
    counted = beside if len(beside) >= RACE_BLOCKS_MIN else runs
    rate = statistics.median(one.samples_per_s for one in counted)
    return BestMeasured(config=runs[0].config, samples_per_s=rate, runs=len(counted))


def _settle_order(fields: dict[str, Any], pins: Mapping[str, Any]) -> None:
    """Let go of what streaming excludes; where that is pinned itself, samples are given by index instead."""
    if fields["order"] != "streaming":
        return
    for name, possible, otherwise in (
        ("archive", STREAMING_FORMATS, STREAMING_FORMATS[0]),
        ("cache", ("none",), "none"),
    ):
        if fields[name] in possible:
            continue
        if name not in pins:
            fields[name] = otherwise
        elif "order" not in pins:
            fields["order"] = "map"


def _settle_form(fields: dict[str, Any], pins: Mapping[str, Any]) -> None:
    forms = STORED_FORMS.get(fields["archive"], ())
    if fields["stored"] is None or fields["stored"] in forms:
        return
    if "stored" not in pins:
        fields["stored"] = None
    elif "archive" not in pins:
        holders = [name for name, possible in STORED_FORMS.items() if pins["stored"] in possible]
        fields["archive"] = holders[0] if holders else fields["archive"]
