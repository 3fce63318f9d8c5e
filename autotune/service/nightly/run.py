"""A night from start to end, or from where one that was killed stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from autotune.constants import NIGHT_RESUMED_WITHIN_S
from autotune.registry import Registry, open_registry
from autotune.resolve.deployed import deployed_archives
from autotune.service.nightly.holding import machine_held
from autotune.service.nightly.order import NightOrder
from autotune.service.nightly.pruning import archive_names, prune
from autotune.service.nightly.sharing import by_need, shares
from autotune.service.nightly.study_night import Looked, StudyWork
from autotune.service.nightly.telling import NightListener
from autotune.spec import NightlyReport, QueuedStudy, StudyNight

_LOG = logging.getLogger(__name__)

EXIT_FINE, EXIT_FAILED, EXIT_NOTHING_FEASIBLE = 0, 1, 3


def run_night(
    order: NightOrder, listener: NightListener, *, clock: Callable[[], float] = time.monotonic
) -> NightlyReport:
    """Check every study, search where that is needed, prune, and say what became of each.

    What is deployed is checked first, for all studies; then the rest of the budget is shared among the searches. A
    night that was killed goes on where it was, with what is left of its budget.

    Args:
        order: What is to be done.
        listener: Is told how it goes.
        clock: Monotonic seconds.

    Raises:
        MachineBusyError: Another job holds the machine; the message names it.
        RegistryError: The registry cannot be used, or the lease was lost: then nothing more is written.
    """
    purpose = f"nightly run of {len(order.files)} studies"
    with (
        machine_held(order.machine, purpose, at=order.at) as lease,
        open_registry(order.at.home, order.at.registry_url, fences=[lease]) as registry,
    ):
        work = StudyWork(order, listener, registry, lease=lease)
        return _Night(work, registry, clock).run()


class _Night:
    """One night, under way.

    Args:
        work: Does what is to be done for each study.
        registry: The registry, under the lease.
        clock: Monotonic seconds.
    """

    def __init__(self, work: StudyWork, registry: Registry, clock: Callable[[], float]) -> None:
        self._work = work
        self._order = work.order
        self._registry = registry
        self._clock = clock
        self._report = _begun(registry, work.order)
        self._spent_before_s = self._report.spent_s
        self._started_s = clock()

    def run(self) -> NightlyReport:
        """Go through the night."""
        self._save()
        self._registry.requeue_studies(self._order.machine)
        archives = archive_names(self._order.at)
        asked = self._asked()
        self._search(self._checked(asked), asked)
        built = archive_names(self._order.at) - archives
        rebuilt = built.intersection(deployed_archives(self._registry))
        now = datetime.now(UTC)
        pruned = prune(
            self._registry, at=self._order.at, keep_days=self._order.keep_days, now=now, stale=self._work.stale
        )
        self._report = self._report.replace(
            ended_at=now, exit_code=exit_code(self._report.studies), rebuilt=tuple(sorted(rebuilt)), pruned=pruned
        )
        self._save()
        return self._report

    def _asked(self) -> dict[str, QueuedStudy]:
        """Give what was asked for, by the names of files; some may be for the nights of other folders."""
        asked = {one.study: one for one in self._registry.queued_studies("queued")}
        elsewhere = sorted(set(asked) - set(self._order.files))
        if elsewhere:
            _LOG.warning("asked for, but none of the files of this night: %s", ", ".join(elsewhere))
        return asked

    def _checked(self, asked: Mapping[str, QueuedStudy]) -> list[Looked]:
        """Check what is deployed for every study, and give those that need a search."""
        done = {one.file for one in self._report.studies}
        waiting = [name for name in self._in_turn() if str(self._order.files[name]) not in done or name in asked]
        searching = []
        for place, name in enumerate(waiting):
            left_s = self._left_s()
            file, by = self._order.files[name], asked[name].requested_by if name in asked else None
            if left_s <= 0:
                self._add(_not_reached(name, file))
                continue
            found = self._work.check(
                name, file, asked_by=by, allowed_s=left_s / (len(waiting) - place), began=self._report.started_at
            )
            if isinstance(found, StudyNight):
                self._add(found)
                if name in asked and self._take(asked[name]):
                    self._end(asked[name], found)
            else:
                searching.append(found)
        return searching

    def _in_turn(self) -> list[str]:
        """Give the names of the studies, those first that the last night did not come to."""
        last = next((one for one in self._registry.nights(self._order.machine, limit=2) if one.ended_at), None)
        missed = set() if last is None else {one.file for one in last.studies if one.outcome == "out_of_budget"}
        return sorted(self._order.files, key=lambda name: (str(self._order.files[name]) not in missed, name))

    def _search(self, looked: Sequence[Looked], asked: Mapping[str, QueuedStudy]) -> None:
        """Search, those that need it most first, each with its share of what is left then."""
        waiting = by_need([one.plan for one in looked])
        by_file = {one.plan.file: one for one in looked}
        while waiting:
            first = waiting.pop(0)
            budget_s = shares([first, *waiting], self._left_s())[0]
            entry = asked.get(first.file.stem)
            if not budget_s:
                self._add(self._work.left_out(by_file[first.file]))
                continue
            if entry is not None and not self._take(entry):
                self._add(_no_more_asked(by_file[first.file].night))
                continue
            found = self._work.search(by_file[first.file], budget_s)
            self._add(found)
            if entry is not None:
                self._end(entry, found)

    def _end(self, entry: QueuedStudy, found: StudyNight) -> None:
        told = "; ".join(found.told) or found.outcome
        self._registry.end_queued_study(
            entry.key, "failed" if found.outcome == "failed" else "done", message=told, at=datetime.now(UTC)
        )

    def _take(self, entry: QueuedStudy) -> bool:
        return self._registry.take_queued_study(entry.key, machine=self._order.machine, at=datetime.now(UTC))

    def _left_s(self) -> float:
        return self._order.budget_s - self._spent_s()

    def _spent_s(self) -> float:
        return self._spent_before_s + self._clock() - self._started_s

    def _add(self, night: StudyNight) -> None:
        others = tuple(one for one in self._report.studies if one.file != night.file)
        self._report = self._report.replace(studies=(*others, night))
        self._save()
        self._work.listener.on_done(night)

    def _save(self) -> None:
        self._report = self._report.replace(spent_s=self._spent_s())
        self._registry.save_night(self._report)


def exit_code(studies: Sequence[StudyNight]) -> int:
    """Give 1 where something failed, else 3 where a study has nothing feasible, else 0.

    A decision that waits for a person, and a search that another night does, are fine.
    """
    outcomes = {one.outcome for one in studies}
    if "failed" in outcomes:
        return EXIT_FAILED
    return EXIT_NOTHING_FEASIBLE if "nothing_feasible" in outcomes else EXIT_FINE


def _not_reached(name: str, file: Path) -> StudyNight:
    return StudyNight(
        study=name, file=str(file), task="check", why="the night was over before its turn", outcome="out_of_budget"
    )


def _no_more_asked(night: StudyNight) -> StudyNight:
    told = "not searched: who asked for it has cancelled that, or another machine has taken it"
    return night.replace(told=(*night.told, told))


def _begun(registry: Registry, order: NightOrder) -> NightlyReport:
    """Give the report of a night that was killed a while ago, to go on with it, else a new one."""
    now = datetime.now(UTC)
    last = next(iter(registry.nights(order.machine, limit=1)), None)
    recent = last is not None and now - last.started_at < timedelta(seconds=NIGHT_RESUMED_WITHIN_S)
    if last is not None and recent and last.ended_at is None:
        _LOG.warning("the night of %s was interrupted and goes on", f"{last.started_at:%Y-%m-%d %H:%M}")
        return last.replace(budget_s=order.budget_s)
    return NightlyReport(machine=order.machine, started_at=now, budget_s=order.budget_s)
