"""`explain`: why a configuration is served, against what it was measured, and how far to trust it."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.advice import bottleneck_text, smaller_machine_text
from autotune.errors import RegistryError
from autotune.home import home_folder
from autotune.machine import machine_facts
from autotune.registry import Registry, open_existing
from autotune.resolve.best import question_of
from autotune.resolve.deployed import form_name
from autotune.resolve.elsewhere import found_elsewhere
from autotune.resolve.lookup import WAITS, Source, answer, default_answer, look_up, storage_url
from autotune.resolve.pins import checked_pins
from autotune.resolve.question import Question
from autotune.resolve.remote import Remote
from autotune.resolve.resolution import Match, Resolution
from autotune.spec import DatasetFacts, Decision, Interval, TrialRecord
from autotune.units import format_bytes, format_difference, format_rate

if TYPE_CHECKING:
    from torch.utils.data import Dataset

ALTERNATIVES = 5
"""Configurations that are listed beside the one that is served."""

_TRUST: Mapping[Match, str] = {
    "exact": "it was measured on this class of machine, for this dataset, with these versions",
    "near": "it was measured under circumstances that differ as the reasons say; expect the order of "
    "configurations to hold, not the figures",
    "default": "nothing was measured that answers here; this is what PyTorch does without autotune",
}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What is known about one answer.

    Attributes:
        resolution: The answer.
        decision: The decision behind it; None for a default without one.
        archive: Whether the archive that it reads is there, as text; None for plain files.
        alternatives: The fastest other configurations with rate and number of runs, as text.
        infeasible: Configurations that failed, with the reason, as text.
        unsteady_share: Share of the study's measurements that were unsteady; None without any.
        priors: What similar studies found where nothing answers, as text.
    """

    resolution: Resolution
    decision: Decision | None = None
    archive: str | None = None
    alternatives: tuple[str, ...] = ()
    infeasible: tuple[str, ...] = ()
    unsteady_share: float | None = None
    priors: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The explanation, line by line."""
        resolution = self.resolution
        lines = [f"configuration: {resolution.config.label()}", f"match: {resolution.match}"]
        lines += [f"why: {reason}" for reason in resolution.why]
        if self.decision is not None:
            lines += _evidence(self.decision)
        lines += [f"archive: {self.archive}"] if self.archive else []
        lines.append(f"trust: {'; '.join(self._trust())}")
        lines += [f"prior: {text}" for text in self.priors]
        lines += [f"alternative: {text}" for text in self.alternatives]
        lines += [f"not possible: {text}" for text in self.infeasible]
        return tuple(lines)

    def _trust(self) -> list[str]:
        told = [_TRUST[self.resolution.match]]
        if self.decision is not None and self.decision.outcome == "undecided" and self.decision.default_samples_per_s:
            told.append("the budget did not tell gain from noise; a longer one may")
        if self.unsteady_share:
            told.append(f"{self.unsteady_share:.0%} of the measurements were unsteady")
        return told

    def __str__(self) -> str:
        return "\n".join(self.lines)


def explain(
    subject: Dataset[Any] | str,
    *,
    study: str | None = None,
    consumer: str | None = None,
    home: str | Path | None = None,
    environ: Mapping[str, str] = os.environ,
    **pins: Any,
) -> Explanation:
    """Explain what is served for a dataset, or what a study came to.

    Args:
        subject: A dataset, or the name of a study.
        study: Only this study, where the subject is a dataset.
        consumer: Only studies with this kind of consumer.
        home: Home folder; None is `AUTOTUNE_HOME`, else the user's data folder.
        environ: Environment.
        **pins: Fields of `LoaderConfig` that are fixed.

    Raises:
        SpecError: A pin is no field, or the pins contradict each other.
        RegistryError: The subject is a study, and the registry cannot be read or does not know it.
    """
    fixed = checked_pins(pins)
    folder, url = home_folder(home, environ), storage_url(environ)
    if isinstance(subject, str):
        with open_existing(folder, url) as registry:
            return _explained(registry, question_of_study(registry, subject, fixed, environ=environ), folder)
    question = question_of(subject, fixed, study=study, consumer=consumer, environ=environ)
    source = Source.of(home, environ)
    if source.service is not None:
        return _explained_by_service(source.service, question, source)
    try:
        with open_existing(folder, url) as registry:
            return _explained(registry, question, folder)
    except RegistryError as error:
        return Explanation(resolution=default_answer(question, (str(error),)))


def best_of_study(
    name: str,
    *,
    home: str | Path | None = None,
    environ: Mapping[str, str] = os.environ,
    **pins: Any,
) -> Resolution:
    """Give the configuration that a study's dataset is loaded with on this machine.

    Args:
        name: Name of the study.
        home: Home folder; None is `AUTOTUNE_HOME`, else the user's data folder.
        environ: Environment.
        **pins: Fields of `LoaderConfig` that are fixed.

    Raises:
        SpecError: A pin is no field, or the pins contradict each other.
        RegistryError: The registry cannot be read, or does not know the study.
    """
    fixed = checked_pins(pins)
    with open_existing(home_folder(home, environ), storage_url(environ)) as registry:
        return answer(registry, question_of_study(registry, name, fixed, environ=environ))


def question_of_study(
    registry: Registry, name: str, pins: Mapping[str, Any], *, environ: Mapping[str, str] = os.environ
) -> Question:
    """Ask for the dataset that a study deploys a configuration for, on this class of machine where it does.

    Raises:
        RegistryError: The study deploys nothing.
    """
    machine = machine_facts(environ=environ)
    found = registry.candidates_of_study(name)
    if not found and registry.decisions(name, limit=1):
        raise RegistryError(f"study {name!r} deploys nothing {WAITS}")
    if not found:
        known = ", ".join(registry.studies()) or "none yet"
        raise RegistryError(f"study {name!r} has no decision in {registry.place}; it has these studies: {known}")
    here = [candidate for candidate in found if candidate.machine_class == machine.machine_class]
    newest = (here or found)[0]
    dataset = DatasetFacts(type_name=newest.type_name, structure=newest.structure, length=newest.length)
    decision = registry.decision(newest.key)
    return Question(dataset=dataset if decision is None else decision.dataset, machine=machine, pins=pins, study=name)


def _explained_by_service(service: Remote, question: Question, source: Source) -> Explanation:
    """Explain as far as the service tells: it gives the decision, and keeps the records to itself."""
    resolution = look_up(question, source)
    decision = None if resolution.decision_key is None else service.decision(resolution.decision_key)
    archive = None if decision is None else _archive(resolution, source.home)
    return Explanation(resolution=resolution, decision=decision, archive=archive)


def _explained(registry: Registry, question: Question, home: Path) -> Explanation:
    resolution = answer(registry, question)
    decision = None if resolution.decision_key is None else registry.decision(resolution.decision_key)
    if decision is None:
        return Explanation(resolution=resolution, priors=found_elsewhere(registry, question))
    records = [
        record
        for record in registry.records(decision.study)
        if record.machine is None or record.machine.machine_class == decision.machine.machine_class
    ]
    measurements = [record.measurement for record in records if record.measurement is not None]
    unsteady = [measurement for measurement in measurements if measurement.unsteady]
    return Explanation(
        resolution=resolution,
        decision=decision,
        archive=_archive(resolution, home),
        alternatives=_alternatives(records, resolution, decision),
        infeasible=_infeasible(records),
        unsteady_share=len(unsteady) / len(measurements) if measurements else None,
    )


def _evidence(decision: Decision) -> list[str]:
    machine, lines = decision.machine, []
    if decision.samples_per_s is not None:
        lines.append(f"measured: {format_rate(decision.samples_per_s)} with {decision.config.label()}")
    if decision.default_samples_per_s is not None:
        lines.append(f"against: {format_rate(decision.default_samples_per_s)} with {decision.default.label()}")
    if decision.ratio is not None:
        lines.append(f"ratio: {_interval(decision.ratio)}, {decision.pairs} interleaved pairs of fresh processes")
    if decision.batch_size_gain is not None:
        lines.append(f"batch size alone: {decision.batch_size_gain:.2f} times the same configuration at batch 32")
    if decision.peak_bytes is not None and decision.limit_bytes is not None:
        peak, limit = format_bytes(decision.peak_bytes), format_bytes(decision.limit_bytes)
        lines.append(f"device memory: {peak} of at most {limit}")
    headroom = decision.headroom
    if headroom.bound_samples_per_s is not None and headroom.share is not None:
        bound = format_rate(headroom.bound_samples_per_s)
        lines.append(f"headroom: {headroom.share:.0%} of what any loader could reach at this batch size ({bound})")
    if decision.resolution_share is not None:
        lines.append(f"resolution: less than {format_difference(decision.resolution_share)} could not be told here")
    lines += [f"bottleneck: {bottleneck_text(found)}" for found in decision.bottlenecks]
    lines.append(f"smaller machine: {smaller_machine_text(decision)}")
    lines += [f"found: {note}" for note in decision.notes]
    workload = decision.workload
    lines.append(f"consumer: {workload.consumer.kind}, page cache {workload.page_cache}")
    lines.append(f"machine: {machine.machine_class} ({machine.host})")
    lines.append("versions: " + ", ".join(f"{name} {version}" for name, version in sorted(machine.versions.items())))
    lines.append(f"decided: {decision.decided_at:%Y-%m-%d %H:%M} UTC by {decision.decided_by}")
    return lines


def _archive(resolution: Resolution, home: Path) -> str | None:
    config = resolution.config
    if config.archive == "files" or resolution.fingerprint is None:
        return None
    form = form_name(config)
    if (home / "archives" / resolution.fingerprint / form).is_dir():  # published whole, or not at all
        return f"{form} is built, and used as long as the source is as it was tuned"
    return (
        f"{form} is not built, so best_loader takes the best of what is; `autotune archive build` with the study's "
        "file, or archive='build' there, builds it"
    )


def _interval(ratio: Interval) -> str:
    return f"{ratio.mean:.2f} times, 95 % interval {ratio.low:.2f} to {ratio.high:.2f}"


def _alternatives(records: Sequence[TrialRecord], resolution: Resolution, decision: Decision) -> tuple[str, ...]:
    accelerated = decision.machine.has_accelerator
    served = resolution.config.canonical(has_accelerator=accelerated)
    rates: dict[str, list[float]] = {}
    for record in records:
        same = record.workload.consumer.kind == decision.workload.consumer.kind
        if record.measurement is not None and same and record.config.canonical(has_accelerator=accelerated) != served:
            rates.setdefault(record.config.label(), []).append(record.measurement.samples_per_s)
    ranked = sorted(rates.items(), key=lambda item: (-statistics.median(item[1]), item[0]))[:ALTERNATIVES]
    return tuple(
        f"{format_rate(statistics.median(found))} ({len(found)} run{'s' if len(found) > 1 else ''}): {label}"
        for label, found in ranked
    )


def _infeasible(records: Sequence[TrialRecord]) -> tuple[str, ...]:
    told = {
        record.config.label(): f"{record.config.label()}: {record.failure.kind.replace('_', ' ')}, "
        f"{record.failure.message}"
        for record in records
        if record.failure is not None
    }
    return tuple(list(told.values())[-ALTERNATIVES:])
