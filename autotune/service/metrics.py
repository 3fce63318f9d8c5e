"""Figures for Prometheus: requests, how long they took, answers that were kept, and whether the registry answers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from autotune.service.state import Service

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Bounds of the histogram: kept answers take about one millisecond, and a client waits two seconds."""
_UNKNOWN = "unmatched"
"""Path of requests that no route answers: their own would make a series each."""


class Metrics:
    """The figures of one service.

    Args:
        service: The service, whose state is read when the figures are.
    """

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "autotune_requests", "Requests.", ["method", "path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "autotune_request_seconds", "Time of requests.", ["path"], registry=self._registry, buckets=_SECONDS
        )
        self._registry.register(_State(service))

    def count(self, method: str, path: str, *, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """Give all figures in Prometheus' text form."""
        return generate_latest(self._registry)


class _State(Collector):
    """Reads the state of a service when it is asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Give what the service knows of its answers and of the registry."""
        asked = CounterMetricFamily("autotune_answers", "Answers, by whether they were kept.", labels=["kept"])
        asked.add_metric(["yes"], self._service.answers.hits)
        asked.add_metric(["no"], self._service.answers.misses)
        yield asked
        age_s = self._service.watch.age_s
        yield GaugeMetricFamily(
            "autotune_registry_age_seconds",
            "Time since the registry was last read; -1 where it never was.",
            value=age_s if math.isfinite(age_s) else -1,
        )


class Counted:
    """Counts every request, refused ones too, by the template of its path.

    Args:
        app: What comes next.
        metrics: Where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when it ends."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", _UNKNOWN)
            self._metrics.count(scope["method"], path, status=status, seconds=time.perf_counter() - started)
