"""Pages of studies: all of them, and one with what it deploys, what it came to, and where else it is shown."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from autotune.errors import RegistryError
from autotune.registry import Registry
from autotune.service.pages.addresses import named
from autotune.service.pages.history import history_of
from autotune.service.pages.rendering import dashboard_address, page
from autotune.service.problems import not_found
from autotune.service.state import Service, service_of
from autotune.spec import AccessToken, Decision, Deployment, WaitingDecision

_DECISIONS_MAX = 50
_EVENTS_MAX = 100


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """A study among others.

    Attributes:
        name: Its name.
        deployments: What is deployed of it.
        waiting: What waits for a person.
    """

    name: str
    deployments: tuple[Deployment, ...]
    waiting: tuple[WaitingDecision, ...]


async def show_studies(request: Request, visitor: AccessToken) -> Response:
    """Show all studies with what they deploy, those first that wait for a person."""
    service = service_of(request)

    def work() -> Response:
        rows = _rows(service.registry)
        count = sum(len(row.waiting) for row in rows)
        return page(request, "studies", title="Studies", visitor=visitor, part="studies", rows=rows, waiting=count)

    return await service.show(work)


async def show_study(request: Request, visitor: AccessToken) -> Response:
    """Show one study."""
    service, name = service_of(request), named(request, "study")

    def work() -> Response:
        registry = service.registry
        decisions = registry.decisions(name, limit=_DECISIONS_MAX)
        if not decisions and name not in registry.studies():
            raise not_found(f"There is no study {name!r}.")
        return page(
            request,
            "one_study",
            title=name,
            visitor=visitor,
            part="studies",
            study=name,
            deployments=registry.deployments(name),
            waiting=registry.waiting(name),
            decisions=decisions,
            before=_compared_first(decisions),
            history=history_of(registry, registry.events(name, limit=_EVENTS_MAX)),
            elsewhere=elsewhere(service, request, name),
        )

    return await service.show(work)


def elsewhere(service: Service, request: Request, study: str) -> dict[str, str]:
    """Give the addresses under which other programs show a study, by what they are called."""
    found = {}
    if service.dashboard is not None:
        address = dashboard_address(service, request)
        with suppress(RegistryError):  # what is decided does not need Optuna's database
            pages = service.dashboard.pages(study)
            found = {f"{name} in optuna-dashboard": address + path for name, path in pages.items()}
    if service.settings.mlflow_url:
        search = f"/#/experiments?experimentSearchFilter={quote(study, safe='')}"
        found["runs in MLflow"] = service.settings.mlflow_url + search
    return found


def _rows(registry: Registry) -> list[StudyRow]:
    deployments, waiting = registry.deployments(), registry.waiting()
    rows = [
        StudyRow(
            name=name,
            deployments=tuple(one for one in deployments if one.study == name),
            waiting=tuple(one for one in waiting if one.decision.study == name),
        )
        for name in registry.studies()
    ]
    return sorted(rows, key=lambda row: (not row.waiting, row.name))


def _compared_first(decisions: list[Decision]) -> Decision | None:
    """Give what the newest decision is best compared with: the newest one that has another configuration."""
    others = (decision for decision in decisions[1:] if decision.config != decisions[0].config)
    return next(others, decisions[1] if len(decisions) > 1 else None)
