"""`create_app`: the service as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from autotune.registry import Registry
from autotune.service import health, openapi, queue, resolver, reviews
from autotune.service.authentication import Authentication
from autotune.service.dashboard import Dashboard
from autotune.service.limits import KnownHosts
from autotune.service.metrics import Counted
from autotune.service.pages.answering import nowhere
from autotune.service.pages.routes import page_routes
from autotune.service.problems import add_handlers
from autotune.service.settings import BODY_LIMIT_BYTES, Settings
from autotune.service.state import Service

API_VERSION = "1"
"""Version of the paths under `/v1`; documents have versions of their own."""
_PARTS = (resolver, queue, reviews, health)
_TOLD = "Hands out data loader configurations, takes studies to be measured, and says what was decided and why."


def create_app(registry: Registry, settings: Settings, dashboard: Dashboard | None = None) -> FastAPI:
    """Give the service over a registry.

    Args:
        registry: The registry, opened for writing; the caller closes it when the service has ended.
        settings: What the operator decided.
        dashboard: optuna-dashboard on a port of its own, which pages link to; None without one.
    """
    service = Service(registry, settings, dashboard)
    app = FastAPI(
        title="autotune",
        version=API_VERSION,
        description=_TOLD,
        docs_url=None,  # the pages that FastAPI would offer load scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
        max_body_size=BODY_LIMIT_BYTES,
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service
    for part in _PARTS:
        app.include_router(part.router)
    pages = page_routes()
    app.router.routes.extend(pages)
    add_handlers(app, [*(route for part in _PARTS for route in part.router.routes), *pages])
    app.add_exception_handler(404, nowhere)
    openapi.complete(app)
    # what is added last meets a request first
    app.add_middleware(Authentication, service=service)
    app.add_middleware(KnownHosts, hosts=settings.allowed_hosts)
    app.add_middleware(Counted, metrics=service.metrics)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.service.close()
