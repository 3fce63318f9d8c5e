"""The service as users run it: `autotune serve` in a process of its own, and a client that adds nothing to HTTP."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from autotune.registry import open_registry
from autotune.service.tokens import digest_of, new_token
from autotune.spec import AccessToken

SOON_S = 20
"""Longest wait for something that comes within a second on a quiet machine."""
_MAIN = "from autotune.cli import main; main()"


class Running:
    """A service that runs."""

    def __init__(self, process, port, *, dashboard_port=None, own_token=None):
        self.process = process
        self.port = port
        self.address = f"http://127.0.0.1:{port}"
        self.dashboard_port = dashboard_port
        self.own_token = own_token

    def ask(self, method, path, token=None, *, body=None, headers=None, **query):
        """Send a request; give status, headers and the document, or the text where it is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        if body is not None and not isinstance(body, bytes):
            body, sent["Content-Type"] = json.dumps(body), "application/json"
        target = f"{path}?{urlencode(query)}" if query else path
        with contextlib.closing(connection):
            connection.request(method, target, body=body, headers={**sent, **(headers or {})})
            response = connection.getresponse()
            text = response.read()
            try:
                return response.status, response.headers, json.loads(text)
            except ValueError:
                return response.status, response.headers, text.decode(errors="replace")

    def get(self, path, token=None, **query):
        return self.ask("GET", path, token, **query)

    def until(self, status, path, token=None, **query):
        """Ask until this status comes, as the service looks at its registry twice a second."""
        deadline = time.monotonic() + SOON_S
        while True:
            answer = self.get(path, token, **query)
            if answer[0] == status:
                return answer
            assert time.monotonic() < deadline, answer
            time.sleep(0.1)

    def send_signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait(10)


@contextlib.contextmanager
def running_service(home, url=None, *arguments):
    """Start a service over a home folder or a database, and end it."""
    environ = {**os.environ, "AUTOTUNE_HOME": str(home)}
    environ.pop("AUTOTUNE_STORAGE", None)
    environ.pop("AUTOTUNE_URL", None)
    if url is not None:
        environ["AUTOTUNE_STORAGE"] = url
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN, "serve", "--port", "0", *arguments],
        env=environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        told = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", told)
        assert found, told + process.stderr.read()
        beside = re.search(r":(\d+)/", process.stderr.readline())
        own = re.search(r"/login\?token=(\S+)", process.stderr.readline())
        yield Running(process, int(found[1]), dashboard_port=int(beside[1]), own_token=own[1])
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(15)
        finally:
            process.kill()
            process.stderr.close()


def add_token(home, url=None, *, name="someone", scopes=("read",), expires_in_s=None):
    """Put a token into a registry; give its text."""
    text, now = new_token(), datetime.now(UTC)
    expires_at = None if expires_in_s is None else now + timedelta(seconds=expires_in_s)
    with open_registry(home, url) as registry:
        registry.add_token(
            digest_of(text), AccessToken(name=name, scopes=scopes, created_at=now, expires_at=expires_at)
        )
    return text
