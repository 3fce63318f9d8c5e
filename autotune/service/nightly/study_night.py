"""The work of a night on one study: look, check, take back, search."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from autotune.compose import tune_study
from autotune.constants import NIGHTS_LOOKED_AT
from autotune.errors import AutotuneError, ConflictError, RegistryError
from autotune.registry import AUTOMATIC_ACTOR, Registry
from autotune.service.nightly.baseline import baseline
from autotune.service.nightly.checking import check
from autotune.service.nightly.course import begun, measured, outcome_of
from autotune.service.nightly.judging import Figures, Loss, drift, loss
from autotune.service.nightly.looking import look
from autotune.service.nightly.order import NightOrder
from autotune.service.nightly.planning import Need, Plan
from autotune.service.nightly.telling import NightListener
from autotune.spec import Decision, Inspection, Lease, StudyNight, StudySpec, StudySummary
from autotune.spec.nightly import NightOutcome
from autotune.spec.study_file import read_study
from autotune.trial import LocalRunner

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A study that needs a search, and what was found out about it.

    Attributes:
        plan: What it needs, and why.
        inspection: Its dataset and this machine.
        night: What became of it so far.
        began: When the night began.
    """

    plan: Plan
    inspection: Inspection
    night: StudyNight
    began: datetime


class StudyWork:
    """Does what a night does for each study.

    Args:
        order: What the night is told.
        listener: Is told how it goes.
        registry: The registry, under the lease.
        lease: The lease.
    """

    def __init__(self, order: NightOrder, listener: NightListener, registry: Registry, *, lease: Lease) -> None:
        self.order = order
        self.listener = listener
        self.stale: set[tuple[str, str]] = set()
        self._registry = registry
        self._lease = lease

    def check(
        self, name: str, file: Path, *, asked_by: str | None, allowed_s: float, began: datetime
    ) -> StudyNight | Looked:
        """Look at a study, measure what is deployed again, and take it back where it is a loss.

        Args:
            name: Name of the file.
            file: The file.
            asked_by: Who asked for a search.
            allowed_s: Time for the check.
            began: When the night began.

        Returns:
            What became of it, or that it needs a search.
        """
        started = time.monotonic()
        night = StudyNight(study=name, file=str(file), task="check", why="", outcome="failed")
        try:
            spec = read_study(file)
            night = night.replace(study=spec.name)
            self.listener.on_study(spec.name, "look")
            with LocalRunner() as runner:
                found, inspection = look(
                    spec, file, at=self.order.at, registry=self._registry, runner=runner, began=began,
                    asked_by=asked_by,
                )  # fmt: skip
                self._note_stale(spec, inspection)
                looked = Looked(plan=found, inspection=inspection, night=begun(night, found), began=began)
                done = self._checked(looked, runner=runner, allowed_s=allowed_s)
        except RegistryError:
            raise  # without a registry, or the lease, nothing that follows could be kept
        except Exception as error:  # noqa: BLE001  (a study may fail in any way, and the others still have their night)
            return self._failed(night, error, started)
        wall_s = time.monotonic() - started
        if isinstance(done, StudyNight):
            return done.replace(wall_s=wall_s)
        return replace(done, night=done.night.replace(wall_s=wall_s))

    def search(self, looked: Looked, budget_s: float) -> StudyNight:
        """Run the whole study with a share of the night.

        Whatever led to it, what was measured before this night says nothing of today, unless it never led to a
        decision: then a run was interrupted, which goes on.
        """
        started, night, spec = time.monotonic(), looked.night, looked.plan.spec
        self.listener.on_study(spec.name, "search")
        cut = spec.replace(budget=spec.budget.replace(time_s=budget_s))
        since = looked.began if self._registry.decisions(spec.name, limit=1) else None
        try:
            summary = tune_study(
                cut, at=self.order.at, listeners=self.listener.searching(), lease=self._lease, known_since=since
            )
        except RegistryError:
            raise
        except Exception as error:  # noqa: BLE001  (as above)
            return self._failed(night, error, started)
        found = self._searched(night, looked, summary)
        return found.replace(wall_s=night.wall_s + time.monotonic() - started)

    def left_out(self, looked: Looked) -> StudyNight:
        """Say that the night was too short for a study; what was taken back stays taken back."""
        outcome: NightOutcome = "rolled_back" if looked.night.outcome == "rolled_back" else "out_of_budget"
        told = (*looked.night.told, "the budget of this night was too short for its search")
        return looked.night.replace(outcome=outcome, told=told)

    def _checked(self, looked: Looked, *, runner: LocalRunner, allowed_s: float) -> StudyNight | Looked:
        """Measure what is deployed, where something is that can be."""
        found, night = looked.plan, looked.night
        deployed = found.deployed
        if deployed is None or deployed.outcome == "nothing_feasible":
            if found.need is not Need.NONE:
                return looked
            if found.waiting is None:
                return night
            return night.replace(outcome="waiting", told=("nothing is deployed until it is approved",))
        self.listener.on_study(found.spec.name, "check")
        before = self._registry.deployed_before(deployed.key)
        figures = check(
            found.spec, deployed, before, at=self.order.at, registry=self._registry, runner=runner,
            allowed_s=allowed_s, on_run=self.listener.on_run,
        )  # fmt: skip
        looked = replace(looked, plan=replace(found, run_s=figures.run_s), night=measured(night, figures))
        taken = loss(figures, before)
        if taken is not None:
            return self._taken_back(looked, taken)
        return _judged(looked, self._drift(looked, deployed, figures), figures)

    def _drift(self, looked: Looked, deployed: Decision, figures: Figures) -> str | None:
        """Say how a deployment differs from what this machine measured of it before."""
        nights = self._registry.nights(self.order.machine, limit=NIGHTS_LOOKED_AT)
        earlier = [night for night in nights if night.started_at < looked.began]
        decisions = self._registry.decisions(looked.plan.spec.name)
        before = baseline(deployed, decisions, earlier, host=looked.inspection.machine.host)
        return None if before is None else drift(before, figures)

    def _taken_back(self, looked: Looked, taken: Loss) -> StudyNight | Looked:
        """Deploy what is better than a loss, unless a person has pinned it, and have it searched anew."""
        found, night = looked.plan, looked.night
        deployment, deployed = found.deployment, found.deployed
        assert deployment is not None  # noqa: S101  (it was measured)
        assert deployed is not None  # noqa: S101  (as above)
        if deployment.pinned:
            told = f"it is a loss, but pinned, so that a person has to decide: {taken.reason}"
            return night.replace(outcome="waiting", told=(*night.told, told))
        try:
            event = self._registry.roll_back(
                deployed.key, to=taken.to, actor=AUTOMATIC_ACTOR, reason=taken.reason,
                expected_version=deployment.version,
            )  # fmt: skip
        except ConflictError as error:  # a person was faster, and knows better
            return night.replace(outcome="waiting", told=(*night.told, f"{taken.reason}; but {error}"))
        told = f"{deployed.config.label()} was taken back: {taken.reason}"
        night = night.replace(outcome="rolled_back", told=(*night.told, told), after_key=event.after_key)
        if found.waiting is not None:
            return night
        again = replace(found, task="search", need=Need.TAKEN_BACK, why=taken.reason)
        return replace(looked, plan=again, night=night)

    def _searched(self, night: StudyNight, looked: Looked, summary: StudySummary) -> StudyNight:
        """Say what a search came to, and what is deployed now."""
        key = summary.decision_key
        now = self._registry.deployment_of(key).decision
        last = self._registry.events(decision=key, limit=1)
        waits = bool(last) and last[0].action == "waiting"
        after = None if night.after_key is None else self._registry.decision(night.after_key)
        served = summary.default if after is None else after.config
        outcome = outcome_of(night, looked.plan.deployed, served, now, summary=summary, waits=waits)
        return night.replace(
            outcome=outcome,
            searched=True,
            told=(*night.told, f"searched: {summary.why}"),
            new_key=key,
            after_key=None if now is None else now.key,
            result=summary.outcome,
        )

    def _note_stale(self, spec: StudySpec, inspection: Inspection) -> None:
        """Note the fingerprints that the dataset of a study had here before its files changed."""
        if inspection.fingerprint is None:
            return
        for decision in self._registry.decisions(spec.name):
            same = decision.dataset.type_name == inspection.dataset.type_name
            same = same and decision.machine.host == inspection.machine.host
            if same and decision.fingerprint not in (None, inspection.fingerprint):
                self.stale.add((spec.name, str(decision.fingerprint)))

    def _failed(self, night: StudyNight, error: Exception, started: float) -> StudyNight:
        if not isinstance(error, AutotuneError):
            _LOG.exception("study %s failed in a way that it should not", night.study)
        told = (*night.told, f"failed: {error or type(error).__name__}")
        return night.replace(outcome="failed", told=told, wall_s=night.wall_s + time.monotonic() - started)


def _judged(looked: Looked, drifted: str | None, figures: Figures) -> StudyNight | Looked:
    """Say whether what is deployed still holds, or needs a search."""
    found, night = looked.plan, looked.night
    unmeasured = figures.failure or figures.hindered
    if unmeasured is not None:
        night = night.replace(told=(*night.told, f"it could not be measured: {unmeasured}"))
        if found.need is Need.NONE or not figures.default_runs:
            return night.replace(outcome="failed")
    night = night.replace(told=(*night.told, drifted)) if drifted else night
    if found.need is not Need.NONE:
        return replace(looked, night=night)
    if found.waiting is not None or drifted is None:
        return night.replace(outcome="waiting" if found.waiting else "kept")
    return replace(looked, plan=replace(found, task="search", need=Need.DRIFTED, why=drifted), night=night)
