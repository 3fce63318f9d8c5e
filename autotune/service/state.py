"""`Service`: what all requests of one service share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar

from starlette.requests import HTTPConnection

from autotune.errors import RegistryError
from autotune.registry import Registry
from autotune.service.answers import Answers
from autotune.service.dashboard import Dashboard
from autotune.service.limits import RateLimits, parse_rate
from autotune.service.metrics import Metrics
from autotune.service.sessions import Sessions
from autotune.service.settings import PAGE_LIMIT_S, PAGE_THREADS, THREADS, WORK_LIMIT_S, Settings
from autotune.service.tokens import digest_of, new_token
from autotune.service.watch import Watch
from autotune.spec import AccessToken

T = TypeVar("T")


class Service:
    """What all requests of one service share.

    Args:
        registry: The registry, opened for writing.
        settings: What the operator decided.
        dashboard: optuna-dashboard on a port of its own; None without one.

    Attributes:
        registry: The registry; spoken to in `read` alone, as it blocks.
        settings: What the operator decided.
        dashboard: optuna-dashboard on a port of its own; None without one.
        sessions: Logins of people.
        watch: What the registry last told of tokens and events.
        answers: Answers that are kept.
        rates: How many requests there were.
        rate: Most requests of one token.
        changes: Most of them that may change something.
        metrics: Figures for Prometheus.
    """

    def __init__(self, registry: Registry, settings: Settings, dashboard: Dashboard | None = None) -> None:
        self.registry = registry
        self.settings = settings
        self.dashboard = dashboard
        self.sessions = Sessions(settings.signing_key, secure=settings.is_secure)
        self._own: dict[str, AccessToken] = {}
        self.watch = Watch(lambda since: self.read(lambda: registry.changes(since)))
        self.answers = Answers(self.watch.changed_at)
        self.rates = RateLimits()
        self.rate, self.changes = parse_rate(settings.rate), parse_rate(settings.changes)
        self.metrics = Metrics(self)
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="registry")
        self._page_threads = ThreadPoolExecutor(max_workers=PAGE_THREADS, thread_name_prefix="pages")

    def close(self) -> None:
        """Let go of the threads, without waiting for a registry that hangs."""
        for threads in (self._threads, self._page_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, work: Callable[[], T]) -> T:
        """Do something that blocks, such as a call of the registry, for a bounded time.

        Raises:
            RegistryError: It took too long; it may still end, but nobody waits.
        """
        return await _bounded(self._threads, work, WORK_LIMIT_S)

    async def show(self, work: Callable[[], T]) -> T:
        """Put a page together: figures take a while, and no answer to a training job waits behind them.

        Raises:
            RegistryError: It took too long.
        """
        return await _bounded(self._page_threads, work, PAGE_LIMIT_S)

    def admit(self, token: AccessToken) -> str:
        """Make a token that opens this service while the process runs, and is in no registry; give its text."""
        text = new_token()
        self._own[digest_of(text)] = token
        return text

    def is_own(self, digest: str) -> bool:
        """Say whether a token is of this process alone."""
        return digest in self._own

    async def holder(self, digest: str) -> AccessToken | None:
        """Give the token with this SHA-256; None where there is none, or where it is expired or revoked.

        Raises:
            RegistryError: Nobody can tell.
        """
        token = self._own.get(digest) or (await self.watch.current()).tokens.get(digest)
        now = datetime.now(UTC)
        return token if token is not None and any(token.opens(scope, at=now) for scope in token.scopes) else None


async def _bounded(threads: ThreadPoolExecutor, work: Callable[[], T], limit_s: float) -> T:
    under_way = asyncio.get_running_loop().run_in_executor(threads, work)
    try:
        return await asyncio.wait_for(under_way, limit_s)
    except TimeoutError:
        raise RegistryError(f"the registry did not answer within {limit_s:g} s") from None


def service_of(connection: HTTPConnection) -> Service:
    """Give the service that a request came to."""
    found: Service = connection.app.state.service
    return found
