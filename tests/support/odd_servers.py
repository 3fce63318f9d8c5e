"""Servers that answer as no service does: real sockets, real HTTP, wrong content."""

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Scripted:
    """An HTTP server that answers each request with what it was last told to.

    Attributes:
        status: Status of the answers.
        body: Their body.
        headers: Their headers.
        requests: Path and headers of each request that came.
    """

    def __init__(self):
        self.status, self.body, self.headers = 200, b"{}", {}
        self.requests = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                script.requests.append((self.path, dict(self.headers)))
                self.send_response(script.status)
                for name, value in {"Content-Length": str(len(script.body)), **script.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(script.body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def serve(self):
        self._server.serve_forever(poll_interval=0.05)

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def scripted():
    """Serve until the end of the block."""
    server = Scripted()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


@contextlib.contextmanager
def dripping(first=b"", *, pause_s=0.1):
    """Take each connection, send what is given, and from then on a byte now and then, for ever."""
    listening = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()
    threads = []

    def drip(connection):
        with connection, contextlib.suppress(OSError):
            connection.sendall(first)
            while not ended.wait(pause_s):
                connection.sendall(b"X")

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threads.append(threading.Thread(target=drip, args=(connection,)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        ended.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for thread in (accepting, *threads):
            thread.join()


@contextlib.contextmanager
def silent():
    """Take connections and never say a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
