"""Looking a dataset up in the registry; whatever is wrong with the registry, there is an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from autotune.errors import RegistryError, SpecError
from autotune.home import home_folder
from autotune.registry import Candidate, Measured, Registry, open_existing
from autotune.registry.engine import STORAGE_VARIABLE
from autotune.registry.rows import CONFIG_FIELDS
from autotune.resolve.deployed import deployed_archives, form_fields, form_name, is_available
from autotune.resolve.question import Question
from autotune.resolve.ranking import Choice, choose
from autotune.resolve.remote import Remote
from autotune.resolve.resolution import Resolution, warn_caller
from autotune.resolve.settling import pins_to_look_up, settle, settle_default
from autotune.spec import Decision, LoaderConfig

WAITS = "for now: its decision waits for a review or was rolled back; autotune review list shows it"
"""Why a study that was decided may have no answer, and the way out."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where answers come from.

    Attributes:
        home: Home folder.
        url: Address of the registry; None is the file in the home folder.
        service: The service that is asked instead of a registry; None is none.
    """

    home: Path
    url: str | None = None
    service: Remote | None = None

    @classmethod
    def of(cls, home: str | Path | None, environ: Mapping[str, str]) -> Source:
        """Give what the environment names, for one call of `best_loader` or `best_config`."""
        return cls(home=home_folder(home, environ), url=storage_url(environ), service=Remote.of(environ))


def storage_url(environ: Mapping[str, str]) -> str | None:
    """Give the address of the registry where the environment names one; None is the file in the home folder."""
    return environ.get(STORAGE_VARIABLE) or None


def look_up(question: Question, source: Source) -> Resolution:
    """Answer from the service where there is one, else from the registry, else with PyTorch's default.

    Warns with `AutotuneWarning` where the service is away, or the registry missing, damaged or locked.
    """
    try:
        if source.service is not None:
            return source.service.answer(question, home=source.home)
        with open_existing(source.home, source.url) as registry:
            return answer(registry, question)
    except (RegistryError, SpecError) as error:  # an address that makes no sense is a SpecError; pins were checked
        warn_caller(f"{error}. Going on with PyTorch's default configuration.")
        return default_answer(question, (str(error),))


def deployed_names(source: Source) -> frozenset[str] | None:
    """Name the archives that are deployed, as `<fingerprint>/<format>-<form>`; None where nobody can tell."""
    if source.service is not None:
        return None
    try:
        with open_existing(source.home, source.url) as registry:
            return frozenset(deployed_archives(registry))
    except (RegistryError, SpecError):
        return None


def answer(registry: Registry, question: Question) -> Resolution:
    """Answer from an open registry."""
    choice, decision = _chosen(registry, question)
    if decision is None:
        return default_answer(question, choice.reasons)
    return settle(
        choice,
        decision,
        dataset=question.dataset,
        machine=question.machine,
        pins=question.pins,
        measured=_measured(registry, decision, question),
        archives=question.archives,
        ranks_on_node=question.ranks_on_node,
    )


def default_answer(question: Question, reasons: tuple[str, ...]) -> Resolution:
    """Answer with PyTorch's default and the pins."""
    return settle_default(
        reasons,
        dataset=question.dataset,
        machine=question.machine,
        pins=question.pins,
        ranks_on_node=question.ranks_on_node,
    )


def _measured(registry: Registry, decision: Decision, question: Question) -> list[Measured]:
    """Give what may be served in place of the deployed configuration; nothing where that one is served."""
    wanted = pins_to_look_up(decision, question.pins, question.machine)
    if not wanted and is_available(decision.config, question.archives):
        return []
    fixed = {name: value for name, value in wanted.items() if name in CONFIG_FIELDS}
    fixed["order"] = "streaming" if question.streams else "map"
    if question.archives is None:
        return registry.measured(decision, fixed)
    # Asked for one by one: the many runs of an archive that is not there would leave no room for those of others.
    readable = [form_fields(name) for name in (form_name(LoaderConfig()), *sorted(question.archives))]
    possible = [form for form in readable if all(fixed.get(name, value) == value for name, value in form.items())]
    return [one for form in possible for one in registry.measured(decision, {**fixed, **form})]


def _chosen(registry: Registry, question: Question) -> tuple[Choice, Decision | None]:
    dataset, machine, study = question.dataset, question.machine, question.study
    found = registry.candidates(
        dataset.type_name, machine_class=machine.machine_class, length=dataset.length, study=study
    )
    choice, decision = _of_order(registry, found, question)
    if choice.candidate is not None and choice.candidate.length != dataset.length:
        taken_back = _taken_back(registry, question)
        if taken_back is not None:
            return taken_back, None
    if decision is not None:
        return choice, decision
    if choice.candidate is None:
        # only for the reason: what there is, if not for this machine or not for this dataset
        found = registry.candidates(dataset.type_name, study=study)
        if not found and study is not None:
            found = registry.candidates_of_study(study)
        choice = _choice(found, question)
    if choice.candidate is None:
        idle = [name for name in registry.undeployed(dataset.type_name) if study in (None, name)]
        reasons = tuple(f"study {name!r} deploys nothing {WAITS}" for name in idle)
        return replace(choice, reasons=(*reasons, *(choice.reasons if found or not idle else ()))), None
    return choice, registry.decision(choice.candidate.key)


def _taken_back(registry: Registry, question: Question) -> Choice | None:
    """Answer with the default where that was chosen for this very length; what another length got is no answer then."""
    dataset, machine = question.dataset, question.machine
    found = registry.taken_back(dataset.type_name, machine_class=machine.machine_class, study=question.study)
    chosen = _choice([one for one in found if one.length == dataset.length], question).candidate
    if chosen is None:
        return None
    return Choice(candidate=None, match="default", reasons=(f"study {chosen.study!r} deploys nothing {WAITS}",))


def _of_order(registry: Registry, found: list[Candidate], question: Question) -> tuple[Choice, Decision | None]:
    """Choose a decision that gives samples in the order that is asked for, where there is one; else any."""
    first, left = _choice(found, question), found
    choice = first
    while choice.candidate is not None:
        decision = registry.decision(choice.candidate.key)
        if decision is not None and (decision.config.order == "streaming") == question.streams:
            return choice, decision
        left = [candidate for candidate in left if candidate is not choice.candidate]
        choice = _choice(left, question)
    return first, None if first.candidate is None else registry.decision(first.candidate.key)


def _choice(found: list[Candidate], question: Question) -> Choice:
    return choose(
        found,
        dataset=question.dataset,
        machine=question.machine,
        study=question.study,
        consumer=question.consumer,
        loader_class=question.loader_class,
    )
