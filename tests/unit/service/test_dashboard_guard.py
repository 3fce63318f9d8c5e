"""Where whoever has not logged in is sent from optuna-dashboard."""

import asyncio

import pytest

from autotune.registry import open_registry
from autotune.service.dashboard_guard import _Guard
from autotune.service.settings import Settings
from autotune.service.state import Service


@pytest.mark.parametrize(
    ("service_url", "login"),
    [
        (None, "http://tuner:8642/login"),
        ("http://elsewhere:1", "http://tuner:8642/login"),
        ("https://tuning.example.org/", "https://tuning.example.org/login"),
    ],
)
def test_login_is_where_people_reach_it(tmp_path, service_url, login):
    sent = []

    async def send(message):
        sent.append(message)

    async def visit(service):
        scope = {"type": "http", "method": "GET", "path": "/dashboard", "headers": [(b"host", b"tuner:8643")]}
        await _Guard(None, service, 8642)(scope, None, send)

    with open_registry(tmp_path) as registry:
        service = Service(registry, Settings(service_url=service_url))
        asyncio.run(visit(service))
        service.close()
    assert sent[0]["status"] == 303
    assert dict(sent[0]["headers"])[b"location"].decode() == login
