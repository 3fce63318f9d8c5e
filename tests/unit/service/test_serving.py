"""Several applications in one process: each answers on its port, and one signal ends all."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from autotune.errors import SpecError
from autotune.service.serving import listen

SCRIPT = """
import json, sys
from autotune.service.serving import Listener, listen, serve

def app_saying(word):
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            print("ended", word, flush=True)
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = word.encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    return app

listeners = [Listener(app=app_saying(word), listening=listen("127.0.0.1", 0)) for word in ("one", "two")]
print(json.dumps([listener.port for listener in listeners]), flush=True)
serve(listeners)
print("left", flush=True)
"""


def _environ():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_applications_answer_and_end_with_one_signal(number):
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True, env=_environ()) as process:
        try:
            ports = json.loads(process.stdout.readline())
            for port, word in zip(ports, ("one", "two"), strict=True):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request("GET", "/")
                assert connection.getresponse().read().decode() == word
                connection.close()
            process.send_signal(number)
            told = process.stdout.read().split()
        finally:
            process.kill()
        assert process.wait() == 0
    assert sorted(told) == ["ended", "ended", "left", "one", "two"]


def test_port_that_is_taken_is_told_with_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SpecError, match=rf"port {port} .*--port"):
            listen("127.0.0.1", port)


def test_answers_wait_for_no_acknowledgement():
    async def exchange():
        accepted = asyncio.Queue()

        class Noting(asyncio.Protocol):
            def connection_made(self, transport):
                accepted.put_nowait(transport)

        server = await asyncio.get_running_loop().create_server(Noting, sock=listening)
        async with server:
            _, client = await asyncio.open_connection(*listening.getsockname())
            transport = await accepted.get()
            found = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            client.close()
            transport.close()
        return found

    with listen("127.0.0.1", 0) as listening:
        assert asyncio.run(exchange())


def test_service_needs_no_torch_and_asking_it_no_server_libraries():
    script = (
        "import sys, autotune.service.app, autotune.service.serving; assert 'torch' not in sys.modules; "
        "assert 'optuna' not in sys.modules; assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=_environ())
    script = (
        "import sys, autotune.resolve.best, autotune.resolve.remote; "
        "assert not {'fastapi', 'uvicorn', 'httpx', 'requests', 'limits'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=_environ())
