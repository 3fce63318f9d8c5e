"""Choosing among decisions: which one answers for this dataset on this machine. Pure functions.

A decision for the same class of machine, the same sample structure and other length or minor versions is
*near*. Anything further away is never an answer, only the reason why there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autotune.registry import Candidate
from autotune.registry.rows import major_versions
from autotune.resolve.resolution import Match
from autotune.spec import DatasetFacts, MachineFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """How a candidate differs from what is asked for.

    Attributes:
        candidate: The candidate.
        far: Differences with which it is no answer.
        near: Differences with which it is one, and says so.
    """

    candidate: Candidate
    far: tuple[str, ...]
    near: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The candidate that answers, if one does.

    Attributes:
        candidate: The candidate; None where none answers.
        match: How well it fits.
        reasons: What differs, or why there is none.
    """

    candidate: Candidate | None
    match: Match
    reasons: tuple[str, ...]


def choose(
    candidates: Iterable[Candidate],
    *,
    dataset: DatasetFacts,
    machine: MachineFacts,
    study: str | None = None,
    consumer: str | None = None,
    loader_class: str | None = None,
) -> Choice:
    """Choose the decision that answers: exact before near, then a user's step, then a gain, then the newest.

    What was measured with a class of its own answers for that class, or where its study is asked for, and goes before
    what was measured with torch's DataLoader.

    Args:
        candidates: Decisions, in any order.
        dataset: The dataset that is to be loaded.
        machine: The machine that it is to be loaded on.
        study: Only this study.
        consumer: Only studies with this kind of consumer.
        loader_class: Dotted path of the class that loads; None is torch's DataLoader.
    """
    if dataset.length == 0:
        return Choice(candidate=None, match="default", reasons=("the dataset is empty, so nothing was looked up",))
    wanted = [
        candidate
        for candidate in candidates
        if (study is None or candidate.study == study)
        and (consumer is None or candidate.consumer == consumer)
        and (study is not None or candidate.loader_class in (loader_class, None))
    ]
    judged = [judge(candidate, dataset, machine) for candidate in wanted]
    usable = [judgement for judgement in judged if not judgement.far]
    if usable:
        best = min(usable, key=lambda judgement: (judgement.candidate.loader_class is None, *_preference(judgement)))
        return Choice(candidate=best.candidate, match="near" if best.near else "exact", reasons=best.near)
    return Choice(candidate=None, match="default", reasons=_why_none(judged, dataset, study, consumer))


def judge(candidate: Candidate, dataset: DatasetFacts, machine: MachineFacts) -> Judgement:
    """Name every difference between a candidate and what is asked for."""
    far: list[str] = []
    near: list[str] = []
    name = f"study {candidate.study!r}"
    if candidate.type_name != dataset.type_name:
        far.append(f"{name} measured another dataset: {candidate.type_name}, not {dataset.type_name}")
    elif candidate.structure != dataset.structure:
        far.append(f"{name} measured other samples: {_quoted(candidate.structure)}, not {_quoted(dataset.structure)}")
    if candidate.machine_class != machine.machine_class:
        far.append(f"measured on another machine: {candidate.machine_class}; this one is {machine.machine_class}")
    majors, minors = version_differences(candidate.versions, machine.versions)
    if majors:
        far.append(f"{name} measured with other major versions: {majors}")
    if candidate.outcome == "nothing_feasible":
        far.append(f"{name} found no configuration within its limits")
    if not candidate.sound:
        far.append(f"{name} recorded figures that make no sense")
    if candidate.length != dataset.length:
        near.append(f"{name} measured {_samples(candidate.length)}, this dataset has {_samples(dataset.length)}")
    if minors and not majors:
        near.append(f"{name} measured with other versions: {minors}")
    return Judgement(candidate=candidate, far=tuple(far), near=tuple(near))


def _preference(judgement: Judgement) -> tuple[bool, bool, bool, int, str]:
    candidate = judgement.candidate
    return (
        bool(judgement.near),
        candidate.consumer != "step",
        candidate.outcome != "gain",
        -candidate.decided_us,
        candidate.key,
    )


def _why_none(
    judged: Sequence[Judgement], dataset: DatasetFacts, study: str | None, consumer: str | None
) -> tuple[str, ...]:
    if not judged:
        asked = "no study" if study is None else f"no study {study!r}"
        kind = "" if consumer is None else f" with the consumer {consumer!r}"
        return (f"{asked}{kind} of {dataset.type_name} is in the registry; autotune tune makes one",)
    nearest = min(judged, key=lambda judgement: (len(judgement.far), _preference(judgement)))
    return nearest.far


def version_differences(there: Mapping[str, str], here: Mapping[str, str]) -> tuple[str, str]:
    """List the libraries whose major versions differ, with which nothing answers, and those that differ less."""
    shared = sorted(set(there) & set(here))
    majors_there, majors_here = major_versions(there), major_versions(here)
    majors = [name for name in shared if majors_there[name] != majors_here[name]]
    minors = [name for name in shared if there[name] != here[name] and name not in majors]

    def listed(names: Sequence[str]) -> str:
        return ", ".join(f"{name} {there[name]} instead of {here[name]}" for name in names)

    return listed(majors), listed(minors)


def _samples(length: int | None) -> str:
    return "an unknown number of samples" if length is None else f"{length:,} samples"


def _quoted(structure: str) -> str:
    shown = structure if len(structure) <= 120 else f"{structure[:117]}..."
    return repr(shown)
