"""From the chosen decision to the configuration that is served: batch size, pins, clamps. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from autotune.constants import FUTILITY_SHARE
from autotune.registry import Measured
from autotune.resolve.clamps import clamp, limit_workers
from autotune.resolve.deployed import is_available
from autotune.resolve.pins import best_measured, unmet_pins, with_pins
from autotune.resolve.ranking import Choice, version_differences
from autotune.resolve.resolution import Match, Resolution
from autotune.spec import DatasetFacts, Decision, LoaderConfig, MachineFacts
from autotune.units import format_rate

FALLBACK_BATCH_SIZE = 32
"""Batch size where neither the caller gave one nor a study saw what it costs in memory."""


def effective_pins(decision: Decision | None, pins: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Add the batch size to the pins where a study must not choose it, and say so."""
    if "batch_size" in pins:
        return dict(pins), ()
    if decision is not None and decision.workload.consumer.sees_memory:
        return dict(pins), (f"batch size {decision.config.batch_size} was measured with the training step",)
    why = "no study saw what a batch costs in memory with your training step"
    return {**pins, "batch_size": FALLBACK_BATCH_SIZE}, (
        f"batch size {FALLBACK_BATCH_SIZE}: none was given, and {why}",
    )


def with_order(pins: Mapping[str, Any]) -> dict[str, Any]:
    """Pin samples by index: another way of sampling is for those who ask for it by `order='streaming'`."""
    return {"order": "map", **pins}


def pins_to_look_up(decision: Decision, pins: Mapping[str, Any], machine: MachineFacts) -> dict[str, Any]:
    """Give the fields by which measured records are to be found; empty where the decision meets all pins."""
    every, _ = effective_pins(decision, with_order(pins))
    return unmet_pins(decision.config, every, has_accelerator=machine.has_accelerator)


def settle_default(
    reasons: Sequence[str],
    *,
    dataset: DatasetFacts,
    machine: MachineFacts,
    pins: Mapping[str, Any],
    ranks_on_node: int = 1,
) -> Resolution:
    """Give PyTorch's default with the caller's pins, and the reasons why there is nothing better."""
    every, batch_reasons = effective_pins(None, with_order(pins))
    config = with_pins(LoaderConfig(), every)
    config, clamped = clamp(config, dataset=dataset, machine=machine, pinned=pins, ranks_on_node=ranks_on_node)
    config, sharding = _guard_iterable(config, dataset, pins, sharded=False)
    return Resolution(
        config=config,
        match="default",
        why=(*reasons, *batch_reasons, *clamped, *sharding),
        ranks_on_node=ranks_on_node,
    )


def settle(
    choice: Choice,
    decision: Decision,
    *,
    dataset: DatasetFacts,
    machine: MachineFacts,
    pins: Mapping[str, Any],
    measured: Sequence[Measured] = (),
    archives: Collection[str] | None = None,
    ranks_on_node: int = 1,
) -> Resolution:
    """Give what is served for a chosen decision.

    Args:
        choice: The choice that named the decision.
        decision: The decision.
        dataset: The dataset that is to be loaded.
        machine: The present machine.
        pins: Fields that the caller fixes, checked.
        measured: Measured configurations that have what `pins_to_look_up` asked for.
        archives: Archives that can be had, as `<format>-<form>`; None is any. Plain files always can.
        ranks_on_node: Training processes that share the machine.
    """
    every, batch_reasons = effective_pins(decision, with_order(pins))
    measured = [one for one in measured if not version_differences(one.versions, machine.versions)[0]]
    available = [one for one in measured if is_available(one.config, archives)]
    if is_available(decision.config, archives):
        found = _pinned(decision, every, machine, available)
    else:
        found = _without_its_archive(decision, every, available, machine)
    config, served_samples_per_s, pinned_match, pin_reasons = found
    most = _most(decision, measured)
    config, clamped = clamp(
        config,
        dataset=dataset,
        machine=machine,
        pinned=pins,
        ranks_on_node=ranks_on_node,
        measured_workers=most,
    )
    config, sharding = _guard_iterable(config, dataset, pins, sharded=config.num_workers <= most)
    founded = choice.match == "exact" and pinned_match == "exact" and not clamped
    match: Match = "exact" if founded else "near"
    return Resolution(
        config=config,
        match=match,
        why=(_headline(decision), *choice.reasons, *batch_reasons, *pin_reasons, *_order(config), *clamped, *sharding),
        decision_key=decision.key,
        study=decision.study,
        outcome=decision.outcome,
        ratio=decision.ratio,
        samples_per_s=decision.samples_per_s,
        served_samples_per_s=served_samples_per_s,
        fingerprint=decision.fingerprint,
        ranks_on_node=ranks_on_node,
    )


_Found = tuple[LoaderConfig, float | None, Match, tuple[str, ...]]
"""A configuration with pins, the rate that was measured of it, how well that is founded, and why."""


def _pinned(decision: Decision, pins: Mapping[str, Any], machine: MachineFacts, measured: Sequence[Measured]) -> _Found:
    unmet = unmet_pins(decision.config, pins, has_accelerator=machine.has_accelerator)
    if not unmet:
        return with_pins(decision.config, pins), decision.samples_per_s, "exact", ()
    old = decision.config.canonical(has_accelerator=machine.has_accelerator)
    changed = {name: value for name, value in unmet.items() if getattr(old, name) != value} or unmet
    shown = ", ".join(f"{name}={value}" for name, value in changed.items())
    if set(changed) == {"batch_size"} and _is_left_behind(decision, measured):
        replaced = with_pins(decision.config, pins)
        reason = f"the deployed configuration with {shown}, with which only much slower ones were measured"
        if not any(one.config == replaced.canonical(has_accelerator=machine.has_accelerator) for one in measured):
            return replaced, None, "near", (reason,)
    return _fastest(shown, decision.config, pins, measured, machine=machine)


def _is_left_behind(decision: Decision, measured: Sequence[Measured]) -> bool:
    """Tell whether nothing that was measured with the caller's pins comes near the deployed configuration.

    So it is where a study ended before it tried the caller's batch size with anything but PyTorch's default: the size
    of a batch changes a loader's rate much less than archive, cache and workers do.
    """
    best = best_measured(measured)
    deployed = decision.samples_per_s
    return best is not None and deployed is not None and best.samples_per_s < FUTILITY_SHARE * deployed


def _without_its_archive(
    decision: Decision, pins: Mapping[str, Any], measured: Sequence[Measured], machine: MachineFacts
) -> _Found:
    plain = decision.config.replace(archive="files", stored=None, order="map")
    return _fastest("what is built, or plain files", plain, pins, measured, machine=machine)


def _fastest(
    shown: str,
    otherwise: LoaderConfig,
    pins: Mapping[str, Any],
    measured: Sequence[Measured],
    *,
    machine: MachineFacts,
) -> _Found:
    same = [one for one in measured if not _other_versions(one, machine)]
    best = best_measured(same or measured)
    if best is None:
        reason = f"{shown} was not measured; the rest is the deployed configuration ({otherwise.label()})"
        return with_pins(otherwise, pins), None, "near", (reason,)
    runs = f"{best.runs} run{'s' if best.runs > 1 else ''}"
    reason = f"the fastest that was measured with {shown}: {format_rate(best.samples_per_s)} ({runs})"
    config = with_pins(best.config, pins)
    if same:
        return config, best.samples_per_s, "exact", (reason,)
    others = {_other_versions(one, machine) for one in measured if one.config == best.config}
    return config, best.samples_per_s, "near", (f"{reason}, with other versions: {'; '.join(sorted(others))}",)


def _order(config: LoaderConfig) -> tuple[str, ...]:
    if config.order == "map":
        return ()
    return ("order 'streaming', as asked: samples come in the order of the archive, through a shuffle buffer",)


def _other_versions(measured: Measured, machine: MachineFacts) -> str:
    return version_differences(measured.versions, machine.versions)[1]


def _guard_iterable(
    config: LoaderConfig, dataset: DatasetFacts, pins: Collection[str], *, sharded: bool
) -> tuple[LoaderConfig, tuple[str, ...]]:
    if not dataset.iterable or config.num_workers <= 1 or sharded:
        return config, ()
    unknown = "no study showed that this iterable dataset divides itself over workers"
    if "num_workers" in pins:
        return config, (f"{unknown}: with {config.num_workers} workers samples may come more than once",)
    return limit_workers(config, 1), (f"one worker: {unknown}",)


def _most(decision: Decision, measured: Sequence[Measured]) -> int:
    """Give the most workers of any run that delivered each sample once: a run with repeated ones has no rate."""
    return max([decision.config.num_workers, *(one.config.num_workers for one in measured)])


def _headline(decision: Decision) -> str:
    said = decision.outcome.replace("_", " ")
    by = "" if decision.decided_by == "autotune" else f" by {decision.decided_by}"
    return f"study {decision.study!r}, {decision.decided_at:%Y-%m-%d}{by}, {said}: {decision.why}"
