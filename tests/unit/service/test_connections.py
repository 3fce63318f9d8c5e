"""Clients that keep the service waiting: their connections end, and those of others are answered."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest
import uvicorn

from autotune.service import connections
from autotune.service.connections import TimelyHttp

ENOUGH_S = 60
"""Longest wait for what comes after a tenth of a second on a quiet machine."""
LARGE = 64 * 1024**2
"""Bytes of an answer that no buffer of a socket holds."""
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def _app(scope, receive, send):
    """Answers at once, after the whole body, slowly, or with very much."""
    if scope["path"] == "/body":
        while (await receive()).get("more_body"):
            pass
    if scope["path"] == "/slow":
        await asyncio.sleep(1.0)
    body = b"x" * (LARGE if scope["path"] == "/large" else 1)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def _served():
    """Serve in a thread, with a keep-alive that never ends a connection by itself."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        _app, http=TimelyHttp, ws="none", lifespan="off", log_config=None, access_log=False, timeout_keep_alive=3600
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    try:
        yield listening.getsockname()
    finally:
        server.should_exit = server.force_exit = True
        thread.join(ENOUGH_S)


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setattr(connections, "CLIENT_LIMIT_S", 0.3)
    with _served() as found:
        yield found


def _connected(address, *, source="127.0.0.1"):
    return socket.create_connection(address, timeout=ENOUGH_S, source_address=(source, 0))


def _answer(connection):
    found = connection.recv(65536)
    while found and not found.endswith(b"x"):
        found += connection.recv(65536)
    return found


def _ends(connection):
    """Say whether the other side ends the connection, rather than have it time out."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n12",
        REQUEST,
        REQUEST + b"GET / HT",
    ],
    ids=["silent", "line", "headers", "body", "idle", "next"],
)
def test_connection_ends_when_no_request_comes_or_it_does_not_end(address, sent):
    with _connected(address) as connection:
        connection.sendall(sent)
        assert _ends(connection)


def _ends_under(connection, piece):
    """Send a piece again and again; say whether the other side ends the connection meanwhile."""
    connection.settimeout(0.05)
    try:
        for _ in range(20 * ENOUGH_S):
            connection.sendall(piece)
            time.sleep(0.05)
    except ConnectionError:
        return True
    return False


def test_connection_ends_when_a_request_comes_byte_by_byte(address):
    with _connected(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        assert _ends_under(connection, b"x")


def test_connection_ends_when_a_body_that_nobody_reads_goes_on_after_the_answer(address):
    with _connected(address) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n")
        assert _answer(connection)
        assert _ends_under(connection, b"x")


def test_connection_ends_when_the_answer_is_not_read(address):
    with _connected(address) as connection:
        connection.sendall(REQUEST.replace(b"/ ", b"/large ", 1))
        assert _ends_under(connection, b"GET")


def test_a_long_answer_is_read_to_its_end_over_a_slow_line(monkeypatch):
    monkeypatch.setattr(connections, "CLIENT_LIMIT_S", 1.0)
    with _served() as address, _connected(address) as connection:
        connection.sendall(REQUEST.replace(b"/ ", b"/large ", 1))
        size = pauses = 0
        while size < LARGE:
            if size >= pauses * LARGE // 8:  # eight times, longer in all than a request may take
                time.sleep(0.25)
                pauses += 1
            found = connection.recv(65536)
            assert found, f"the connection was ended after {size} bytes"
            size += len(found)


def test_slow_answer_is_waited_for_and_requests_follow_each_other(monkeypatch):
    monkeypatch.setattr(connections, "CLIENT_LIMIT_S", 0.9)  # less than the answer takes, and enough to ask again
    with _served() as address, _connected(address) as connection:
        for path in (b"/slow ", b"/body ", b"/slow "):
            connection.sendall(REQUEST.replace(b"/ ", path, 1))
            assert _answer(connection).startswith(b"HTTP/1.1 200")


def test_one_address_cannot_have_all_connections(monkeypatch):
    monkeypatch.setattr(connections, "ADDRESS_CONNECTIONS_LIMIT", 3)
    with _served() as address, contextlib.ExitStack() as stack:
        held = [stack.enter_context(_connected(address)) for _ in range(3)]
        assert _ends(stack.enter_context(_connected(address)))
        other = stack.enter_context(_connected(address, source="127.0.0.2"))
        for connection in (*held, other):
            connection.sendall(REQUEST)
            assert _answer(connection).startswith(b"HTTP/1.1 200")
        held.pop().close()
        assert _answered_soon(address, stack)


def _answered_soon(address, stack):
    """Ask until there is room again: the service needs a moment to see that a connection has ended."""
    deadline = time.monotonic() + ENOUGH_S
    while time.monotonic() < deadline:
        connection = stack.enter_context(_connected(address))
        with contextlib.suppress(ConnectionError):
            connection.sendall(REQUEST)
            if _answer(connection):
                return True
    return False
