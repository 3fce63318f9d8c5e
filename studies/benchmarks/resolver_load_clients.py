"""Clients of the resolver, in a process of their own: each sends one request after another and times each.

Reads one JSON document from standard input, writes one to standard output; `resolver_load.py` starts it. Requests are
sent over plain sockets, so that what the clients cost takes as little as possible of the cores that they share with
the service.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from urllib.parse import urlencode

TIMEOUT_S = 10.0


class Client:
    """One client.

    Args:
        port: Port of the service on loopback.
        requests: Requests that it draws from, as they are sent.
        keeps: Whether it keeps its connection; else each request makes one, as each training job does.
        seed: Seed of the drawing.
    """

    def __init__(self, port: int, requests: list[bytes], *, keeps: bool, seed: int) -> None:
        self._port = port
        self._requests = requests
        self._keeps = keeps
        self._draw = random.Random(seed)
        self._connection: socket.socket | None = None
        self.seconds: list[float] = []
        self.statuses: Counter[str] = Counter()

    def run(self, until: float) -> None:
        """Send requests that are drawn until a time on the monotonic clock."""
        while time.monotonic() < until:
            self._timed(self._draw.choice(self._requests))
        self._drop()

    def ask_each(self, requests: list[bytes]) -> None:
        """Send each of these requests once."""
        for request in requests:
            self._timed(request)
        self._drop()

    def _timed(self, request: bytes) -> None:
        started = time.perf_counter()
        try:
            status = self._exchange(request)
        except (OSError, ValueError) as error:
            self._drop()
            status = type(error).__name__
        self.seconds.append(time.perf_counter() - started)
        self.statuses[status] += 1

    def _exchange(self, request: bytes) -> str:
        if self._connection is None:
            self._connection = socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT_S)
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.sendall(request)
        found = b""
        while b"\r\n\r\n" not in found:
            found += self._received()
        head, _, body = found.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += self._received()
        if not self._keeps:
            self._drop()
        return head.split(b" ", 2)[1].decode()

    def _received(self) -> bytes:
        part = self._connection.recv(65536) if self._connection else b""
        if not part:
            raise OSError("the connection was closed")
        return part

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def main() -> None:
    """Run all clients for the time that the document says, or until each question was asked once."""
    job = json.load(sys.stdin)
    close = "" if job["keeps"] else "Connection: close\r\n"
    headers = f"Host: 127.0.0.1\r\nAuthorization: Bearer {job['token']}\r\n{close}\r\n"
    queries = [urlencode({"question": question}) for question in job["questions"]]
    requests = [f"GET /v1/best?{query} HTTP/1.1\r\n{headers}".encode() for query in queries]
    clients = [Client(job["port"], requests, keeps=job["keeps"], seed=number) for number in range(job["clients"])]
    started = time.monotonic()
    if job["seconds"] is None:
        shares = [requests[number :: job["clients"]] for number in range(job["clients"])]
        threads = [
            threading.Thread(target=one.ask_each, args=(share,)) for one, share in zip(clients, shares, strict=True)
        ]
    else:
        threads = [threading.Thread(target=one.run, args=(started + job["seconds"],)) for one in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses: Counter[str] = sum((one.statuses for one in clients), Counter())
    took_s = time.monotonic() - started
    seconds = [each for one in clients for each in one.seconds]
    json.dump({"took_s": took_s, "seconds": seconds, "statuses": statuses}, sys.stdout)


if __name__ == "__main__":
    main()
