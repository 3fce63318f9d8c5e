"""The course of a night for one study, as its report tells it. Pure."""

from __future__ import annotations

from autotune.constants import CONFIRM_PAIRS_MIN
from autotune.service.nightly.baseline import recorded_ratio
from autotune.service.nightly.judging import Figures
from autotune.service.nightly.planning import Need, Plan
from autotune.spec import Decision, LoaderConfig, StudyNight, StudySummary
from autotune.spec.nightly import NightOutcome


def begun(night: StudyNight, found: Plan) -> StudyNight:
    """Note what is to be done, and what is deployed when that begins."""
    deployed = found.deployed
    key = None if deployed is None else deployed.key
    return night.replace(
        task=found.task,
        why=found.why,
        outcome="rolled_back" if found.need is Need.TAKEN_BACK else "kept",
        recorded=None if deployed is None else recorded_ratio(deployed),
        recorded_samples_per_s=None if deployed is None else deployed.samples_per_s,
        before_key=key,
        after_key=key,
    )


def measured(night: StudyNight, figures: Figures) -> StudyNight:
    """Note what a check measured."""
    rates = figures.rates
    told = [*night.told]
    if figures.failed_once is not None:
        told.append(f"a run failed, the next one did not: {figures.failed_once}")
    if 0 < len(rates) < CONFIRM_PAIRS_MIN:
        told.append(f"the time allowed {len(rates)} runs of it, too few to compare it with the default")
    return night.replace(
        told=tuple(told),
        measured=figures.against_default,
        measured_samples_per_s=sum(rates) / len(rates) if rates else None,
    )


def outcome_of(
    night: StudyNight,
    before: Decision | None,
    served: LoaderConfig,
    now: Decision | None,
    *,
    summary: StudySummary,
    waits: bool,
) -> NightOutcome:
    """Name what became of a study that was searched.

    Args:
        night: What became of it before the search.
        before: What was deployed before the night.
        served: The configuration that was deployed when the search began.
        now: What is deployed now.
        summary: What the search came to.
        waits: Whether that waits for a person.
    """
    if summary.outcome == "nothing_feasible":
        return "nothing_feasible"
    config = None if now is None else now.config
    if night.outcome == "rolled_back" and (waits or config in (served, None)):
        return "rolled_back"
    if waits:
        return "waiting"
    return "kept" if before is not None and before.config == config else "promoted"
