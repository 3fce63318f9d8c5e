"""Looking at the registry at most every half second: who may be answered, and whether answers still hold."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from autotune.errors import RegistryError
from autotune.registry import Changes
from autotune.service.settings import HONOURED_S, LOOK_LIMIT_S, PAUSE_S, REFRESH_S

_LOG = logging.getLogger(__name__)


class Watch:
    """Keeps what the registry last told of tokens and events.

    While the registry cannot be read, what it told last counts for a minute, so that a short outage refuses nobody;
    and nobody waits for each request anew.

    Args:
        look: Reads what is newer than an event; raises `RegistryError` where it cannot.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self, look: Callable[[int], Awaitable[Changes]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look = look
        self._clock = clock
        self._seen: Changes | None = None
        self._changed: dict[str, int] = {}
        self._seen_at = self._failed_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    @property
    def age_s(self) -> float:
        """Seconds since the registry was last read; infinite before."""
        return self._clock() - self._seen_at

    def changed_at(self, type_name: str | None) -> int:
        """Give the number of the newest event of a class of dataset, or of any; 0 where nothing is known of any."""
        if type_name is None:
            return 0 if self._seen is None else self._seen.newest_event
        return self._changed.get(type_name, 0)

    async def current(self) -> Changes:
        """Give what holds now.

        Raises:
            RegistryError: The registry could not be read for too long.
        """
        if self.age_s > REFRESH_S and self._clock() - self._failed_at > PAUSE_S:
            await self._refresh()
        if self._seen is None or self.age_s > HONOURED_S:
            raise RegistryError("the registry cannot be read, so nobody can be let in; it is tried again all the time")
        return self._seen

    async def fresh(self) -> Changes:
        """Give what holds now, as far as the registry can be read now.

        Raises:
            RegistryError: It cannot.
        """
        found = await self.current()
        if self.age_s > REFRESH_S + LOOK_LIMIT_S:
            raise RegistryError(f"the registry was last read {self.age_s:.0f} s ago")
        return found

    async def _refresh(self) -> None:
        """Look, or wait for the look that is under way, for a bounded time."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._once())
        done, _ = await asyncio.wait([self._looking], timeout=LOOK_LIMIT_S)
        if not done:
            self._failed_at = self._clock()

    async def _once(self) -> None:
        started = self._clock()
        try:
            self._seen = await self._look(self.changed_at(None))
        except RegistryError as error:
            self._failed_at = self._clock()
            _LOG.warning("the registry was not read: %s", error)
            return
        self._changed.update(self._seen.changed)
        self._seen_at = started
        self._failed_at = float("-inf")
