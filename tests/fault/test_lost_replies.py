"""A server commits, and the connection is gone before it says so: what is repeated then is done once (rows 6, 7)."""

import contextlib
import socket
import threading
from datetime import UTC, datetime

import pytest
from registry_values import START, decision

from autotune.errors import SpecError
from autotune.registry import open_registry
from autotune.spec import AccessToken, LoaderConfig, QueuedStudy

pytestmark = pytest.mark.fault(6, 7)

END_OF_ONE = b"Z\x00\x00\x00\x05I"
"""ReadyForQuery outside of a transaction, as a server says after a commit."""


class Cutting:
    """A way to a server that is cut, once it is told so, when the server has committed."""

    def __init__(self, port):
        self._server = ("127.0.0.1", port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.armed = threading.Event()
        self.cut = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client):
        with client, socket.create_connection(self._server) as server:
            committing = threading.Event()
            threading.Thread(target=self._back, args=(server, client, committing), daemon=True).start()
            with contextlib.suppress(OSError):
                while data := client.recv(65536):
                    if b"COMMIT" in data and self.armed.is_set():
                        committing.set()
                    server.sendall(data)

    def _back(self, server, client, committing):
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if committing.is_set() and data.endswith(END_OF_ONE):
                    self.armed.clear()
                    self.cut += 1
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)

    def close(self):
        self._listening.close()


@pytest.fixture
def way(postgresql, tmp_path):
    """A registry behind a way that can be cut, with a decision that is deployed and one that waits."""
    cutting = Cutting(postgresql.port)
    url = postgresql.new_database().replace(f":{postgresql.port}/", f":{cutting.port}/")
    with contextlib.closing(cutting), open_registry(tmp_path, url, wait_s=20) as registry:
        registry.save_decision(_decided(1))
        registry.save_decision(_decided(2), promotion="review")
        yield registry, cutting


def _decided(workers):
    config = LoaderConfig(num_workers=workers).canonical(has_accelerator=False)
    return decision(key=f"k{workers}", config=config, minute=workers)


def _lost(cutting, work):
    """Do something whose commit is not confirmed."""
    cutting.armed.set()
    found = work()
    assert cutting.cut == 1
    return found


@pytest.mark.parametrize("action", ["approved", "rejected", "pinned", "rolled_back"])
def test_what_a_person_decides_is_done_once_and_is_no_conflict_with_itself(way, action):
    registry, cutting = way
    said = {"actor": "ada", "reason": "r", "expected_version": registry.deployments()[0].version}
    work = {
        "approved": lambda: registry.approve("k2", **said),
        "rejected": lambda: registry.reject("k2", **said),
        "pinned": lambda: registry.pin("k1", **said),
        "rolled_back": lambda: registry.roll_back("k1", **said),
    }[action]
    event = _lost(cutting, work)
    assert (event.action, event.actor) == (action, "ada")
    assert registry.events()[0] == event
    assert len(registry.events()) == 3
    assert registry.deployments()[0].version == said["expected_version"] + 1


def test_token_is_made_once_and_its_name_is_not_taken_by_itself(way):
    registry, cutting = way
    token = AccessToken(name="ada", scopes=("read",), created_at=datetime.now(UTC), expires_at=None)
    _lost(cutting, lambda: registry.add_token("d1", token))
    assert registry.tokens() == [token]
    for other in (token.replace(scopes=("review",)), token.replace(created_at=START)):
        with pytest.raises(SpecError, match="'ada' is taken"):
            registry.add_token("d1", other)


def test_study_that_a_machine_has_taken_is_its_own(way):
    registry, cutting = way
    at = datetime.now(UTC)
    entry = registry.queue_study(QueuedStudy(study="one", requested_by="ada", requested_at=at))
    assert _lost(cutting, lambda: registry.take_queued_study(entry.key, machine="here", at=at))
    assert not registry.take_queued_study(entry.key, machine="there", at=at)
