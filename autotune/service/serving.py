"""Serving applications until a signal ends them: several ports, one process, one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn

from autotune.errors import SpecError
from autotune.service.connections import TimelyHttp
from autotune.service.settings import CONNECTIONS_LIMIT

GRACE_S = 5
"""How long requests that are under way may take to end."""
_BACKLOG = 1024
_ENDING = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class Listener:
    """An application and the address that it listens on already.

    Attributes:
        app: ASGI application.
        listening: Bound socket.
    """

    app: Any
    listening: socket.socket

    @property
    def port(self) -> int:
        """Its port, also where the kernel chose one."""
        return int(self.listening.getsockname()[1])


def listen(host: str, port: int) -> socket.socket:
    """Bind an address, so that whoever connects from now on is answered as soon as serving begins.

    Args:
        host: Address or name of this machine.
        port: Port; 0 lets the kernel choose one.

    Raises:
        SpecError: The address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        created = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise SpecError(f"{host} port {port} cannot be listened on ({error}); name another one with --port") from error
    # asyncio turns Nagle's algorithm off where it is told that this is TCP: else each answer on a connection that is
    # kept waits 40 ms for the client's acknowledgement
    return socket.socket(created.family, created.type, socket.IPPROTO_TCP, fileno=created.detach())


def serve(listeners: Sequence[Listener]) -> None:
    """Serve until SIGINT or SIGTERM; requests that are under way are answered first.

    Args:
        listeners: What is served where.
    """
    asyncio.run(_serve([_Server(_config(one)) for one in listeners], [one.listening for one in listeners]))


class _Server(uvicorn.Server):
    """A server among several: signals are for all of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the servers."""
        yield


def _config(listener: Listener) -> uvicorn.Config:
    return uvicorn.Config(
        listener.app,
        log_config=None,  # logging is the caller's
        access_log=False,
        http=TimelyHttp,
        ws="none",
        server_header=False,
        proxy_headers=False,  # nobody says which proxies could be believed
        limit_concurrency=CONNECTIONS_LIMIT,
        timeout_graceful_shutdown=GRACE_S,
    )


async def _serve(servers: Sequence[uvicorn.Server], listening: Sequence[socket.socket]) -> None:
    def end() -> None:
        for server in servers:
            server.should_exit = True

    for number in _ENDING:
        asyncio.get_running_loop().add_signal_handler(number, end)
    await asyncio.gather(
        *(server.serve(sockets=[one]) for server, one in zip(servers, listening, strict=True)),
    )
