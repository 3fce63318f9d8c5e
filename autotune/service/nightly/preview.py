"""What a night would do, and why: nothing is measured, nothing is written."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime

from autotune.errors import AutotuneError
from autotune.registry import Registry, open_existing
from autotune.service.nightly.looking import look
from autotune.service.nightly.order import NightOrder
from autotune.service.nightly.planning import Need, Plan
from autotune.service.nightly.sharing import by_need, shares
from autotune.spec import StudyNight
from autotune.spec.study_file import read_study
from autotune.trial import LocalRunner


def preview(order: NightOrder) -> list[StudyNight]:
    """Say what would be done for each study, those that need a search most first.

    `wall_s` is the time that a search would get; 0 for a check, which takes what its few runs take.
    """
    plans: list[Plan] = []
    broken: list[StudyNight] = []
    with ExitStack() as stack:
        registry = _registry(order, stack)
        asked = {} if registry is None else {one.study: one.requested_by for one in registry.queued_studies("queued")}
        for name, file in order.files.items():
            try:
                spec = read_study(file)
                with LocalRunner() as runner:
                    found, _ = look(
                        spec, file, at=order.at, registry=registry, runner=runner, began=datetime.now(UTC),
                        asked_by=asked.get(name),
                    )  # fmt: skip
                plans.append(found)
            except AutotuneError as error:
                broken.append(
                    StudyNight(study=name, file=str(file), task="check", why="it cannot be run", outcome="failed",
                               told=(str(error),))
                )  # fmt: skip
    ordered = by_need(plans)
    searching = [one for one in ordered if one.need is not Need.NONE]
    given = [*shares(searching, order.budget_s), *([0.0] * (len(ordered) - len(searching)))]
    return [*(_told(one, budget_s) for one, budget_s in zip(ordered, given, strict=True)), *broken]


def _registry(order: NightOrder, stack: ExitStack) -> Registry | None:
    """Open the registry for reading; None where there is none yet."""
    at = order.at
    if at.registry_url is None and not (at.home / "registry.db").exists():
        return None
    return stack.enter_context(open_existing(at.home, at.registry_url))


def _told(plan: Plan, budget_s: float) -> StudyNight:
    left_out = plan.task == "search" and not budget_s
    return StudyNight(
        study=plan.spec.name,
        file=str(plan.file),
        task=plan.task,
        why=plan.why,
        outcome="out_of_budget" if left_out else "waiting" if plan.waiting else "kept",
        before_key=None if plan.deployed is None else plan.deployed.key,
        wall_s=budget_s,
    )
