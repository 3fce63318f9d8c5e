"""Connections that keep the service waiting: ended after a while, and limited in number for each address."""

from __future__ import annotations

import asyncio
import logging

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from autotune.service.settings import ADDRESS_CONNECTIONS_LIMIT, CLIENT_LIMIT_S, READ_LEAST_BYTES

_LOG = logging.getLogger(__name__)


class TimelyHttp(HttpToolsProtocol):
    """HTTP with clients that are on time.

    uvicorn waits for ever for a request that does not come or does not end, and for a client that does not read its
    answer, so that some hundred silent connections would keep everybody else out, without a token. Here a request takes
    at most `CLIENT_LIMIT_S`, and so does reading `READ_LEAST_BYTES` of an answer: a page with figures takes long over a
    slow line. What the service does itself has limits of its own.
    """

    _timer: asyncio.TimerHandle | None = None
    _unread_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Await the first request, unless the address has too many connections."""
        super().connection_made(transport)
        if self._connections_of_address() > ADDRESS_CONNECTIONS_LIMIT:
            _LOG.warning("%s has more than %d connections; one more was refused", self.host, ADDRESS_CONNECTIONS_LIMIT)
            transport.abort()
        self._await_client()

    def connection_lost(self, exc: Exception | None) -> None:
        """Await nothing any more."""
        self._await_nobody()
        super().connection_lost(exc)

    def on_message_complete(self) -> None:
        """Leave it to the application how long its answer takes."""
        super().on_message_complete()
        if self._is_at_work:
            self._await_nobody()

    def on_response_complete(self) -> None:
        """Await the next request, and that this answer is read."""
        super().on_response_complete()
        if not self._is_at_work:
            self._await_client()

    def pause_writing(self) -> None:
        """Await that the client reads what it was sent."""
        super().pause_writing()
        self._await_client()

    def resume_writing(self) -> None:
        """Leave it to the application how long the rest takes."""
        super().resume_writing()
        if self._is_at_work:
            self._await_nobody()

    @property
    def _is_at_work(self) -> bool:
        """Whether a request came whole and is not answered."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete

    @property
    def host(self) -> str:
        """Address of the client, without its port."""
        return self.client[0] if self.client else "unknown"

    def _connections_of_address(self) -> int:
        if len(self.connections) <= ADDRESS_CONNECTIONS_LIMIT:  # spares the count, of which it cannot be more
            return len(self.connections)
        return sum(isinstance(one, TimelyHttp) and one.host == self.host for one in self.connections)

    def _await_client(self) -> None:
        self._await_nobody()
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(CLIENT_LIMIT_S, self._give_up)

    def _await_nobody(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self._unread_bytes - self.transport.get_write_buffer_size() >= READ_LEAST_BYTES:
            self._await_client()
        else:
            _LOG.info("ended a connection of %s, which kept the service waiting for %g s", self.host, CLIENT_LIMIT_S)
            self.transport.abort()
