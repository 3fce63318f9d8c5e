"""Pages of what happened: to decisions, in nights, and to studies that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from autotune.errors import SpecError
from autotune.registry import Registry
from autotune.service.pages.addresses import asked, named
from autotune.service.pages.rendering import page
from autotune.service.problems import not_found
from autotune.service.state import service_of
from autotune.spec import AccessToken, DecisionEvent, QueuedStudy
from autotune.tracking.report import StudyEvidence
from autotune.tracking.report.night import night_preface
from autotune.tracking.report.tables import HistoryRow, history_rows

_EVENTS_MAX = 200
_NIGHTS_MAX = 60
_NIGHTS_KNOWN = 2000
"""Nights among which one is looked for: some years of one machine."""
_ENDED_MAX = 50


@dataclass(frozen=True, kw_only=True)
class Happening:
    """A row of the history, with the study that it is about."""

    study: str
    row: HistoryRow


def history_of(registry: Registry, events: Sequence[DecisionEvent]) -> list[Happening]:
    """Put events, newest first, into rows with the configurations that they are about."""
    keys = {key for event in events for key in (event.decision_key, event.after_key) if key is not None}
    found = registry.decisions_of(keys)
    evidence = StudyEvidence(study="", decisions=found, records=(), events=events, deployments=registry.deployments())
    rows = history_rows(evidence)
    return [Happening(study=event.study, row=row) for event, row in zip(events, rows, strict=True)]


async def show_history(request: Request, visitor: AccessToken) -> Response:
    """Show what was deployed when, why and by whom: of all studies, or of one."""
    service, study = service_of(request), asked(request, "study") or None

    def work() -> Response:
        registry = service.registry
        happenings = history_of(registry, registry.events(study, limit=_EVENTS_MAX))
        return page(
            request, "history", title="History", visitor=visitor, part="history", history=happenings, study=study,
            studies=registry.studies(), most=_EVENTS_MAX,
        )  # fmt: skip

    return await service.show(work)


async def show_nights(request: Request, visitor: AccessToken) -> Response:
    """Show what nightly runs did, newest first."""
    service = service_of(request)

    def work() -> Response:
        nights = [(night, night_preface(night)) for night in service.registry.nights(limit=_NIGHTS_MAX)]
        return page(request, "nights", title="Nights", visitor=visitor, part="nights", nights=nights)

    return await service.show(work)


async def show_night(request: Request, visitor: AccessToken) -> Response:
    """Show what became of each study in one night."""
    service, key = service_of(request), named(request, "key")

    def work() -> Response:
        found = next((one for one in service.registry.nights(limit=_NIGHTS_KNOWN) if one.key == key), None)
        if found is None:
            raise not_found(f"There is no night {key!r}.")
        preface = night_preface(found)
        title = f"Night of {found.started_at:%Y-%m-%d}"
        rows = list(zip(found.studies, preface.rows, strict=True))
        return page(request, "night", title=title, visitor=visitor, part="nights", night=found, told=preface, rows=rows)

    return await service.show(work)


async def show_queue(request: Request, visitor: AccessToken) -> Response:
    """Show the studies that were asked for: those that wait or run, and the last that ended."""
    service = service_of(request)

    def work() -> Response:
        entries = shown_entries(service.registry, ended=_ENDED_MAX)
        may = visitor.opens("tune", at=datetime.now(UTC))
        return page(
            request, "queue", title="Queue", visitor=visitor, part="queue", entries=entries,
            files=list(service.settings.study_files()) if may else [], may=may,
        )  # fmt: skip

    return await service.show(work)


def shown_entries(registry: Registry, *, ended: int) -> list[QueuedStudy]:
    """Give what is on the page of the queue: all that runs or waits, and so many that ended last."""
    return [
        *registry.queued_studies("running"),
        *registry.queued_studies("queued"),
        *registry.ended_studies(limit=ended),
    ]


async def queue_study(request: Request, visitor: AccessToken) -> Response:
    """Queue one of the study files that the operator laid out."""
    service = service_of(request)
    form = await request.form(max_files=0, max_fields=2)
    wanted = str(form.get("study", ""))

    def work() -> None:
        if wanted not in service.settings.study_files():
            raise SpecError(f"{wanted!r} is none of the study files that may be queued; choose one of the list")
        asked = QueuedStudy(study=wanted, requested_by=visitor.name, requested_at=datetime.now(UTC))
        service.registry.queue_study(asked)

    await service.read(work)
    return RedirectResponse("/queue", 303)
