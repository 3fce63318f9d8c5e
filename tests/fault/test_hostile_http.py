"""Hostile requests (row 29): refused, with nothing changed and nothing told that is nobody's business."""

import contextlib
import json
import socket
import sqlite3
from types import SimpleNamespace

import pytest
from registry_values import Numbers, decision, decision_here
from service_process import add_token, running_service

from autotune.registry import open_registry
from autotune.resolve.best import question_of
from autotune.service.settings import CONNECTIONS_LIMIT
from autotune.spec import LoaderConfig

pytestmark = pytest.mark.fault(29)

MIB = 1024**2
UNLIMITED = ("--rate", "1000000/second", "--changes", "1000000/second")
ALL = ("read", "tune", "review")
INJECTIONS = [
    "'; DROP TABLE decisions; --",
    '" OR 1=1 --',
    "s' UNION SELECT digest FROM access_tokens --",
    "%00",
    "\x00",
]
TRAVERSALS = ["../../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "....//etc/passwd", "%2e%2e/%2e%2e/etc/passwd"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A service over SQLite that limits nobody's rate, a token for everything, and the tables as they were."""
    home = tmp_path_factory.mktemp("home")
    token = add_token(home, name="all", scopes=ALL)
    reader = add_token(home, name="reader")
    with open_registry(home) as registry:
        registry.save_decision(decision_here(Numbers(), LoaderConfig(num_workers=1)))
        registry.save_decision(decision(study="s2"))
    with running_service(
        home, None, "--studies", str(home), "--rate", "1000000/second", "--changes", "1000000/second"
    ) as service:
        yield SimpleNamespace(service=service, token=token, reader=reader, home=home)


@pytest.fixture(autouse=True)
def intact(site):
    """Whatever was asked, the tables hold what they held, and the service still answers."""
    before = _rows(site.home)
    yield
    assert _rows(site.home) == before
    assert site.service.get("/healthz")[0] == 200
    assert site.service.process.poll() is None


def _rows(home):
    with sqlite3.connect(home / "registry.db") as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in sorted(names)}
    connection.close()
    return found


def _raw(site, text, *, body=()):
    """Send bytes as they are; give the status and what came with it.

    The connection stays open for sending, too: asyncio takes a client that ends its half for one that is gone.
    """
    with socket.create_connection(("127.0.0.1", site.service.port), timeout=60) as connection:
        connection.sendall(text)
        for piece in body:
            connection.sendall(piece)
        found = b""
        while part := connection.recv(65536):
            found += part
    return int(found.split(b" ", 2)[1]), found.decode(errors="replace")


@pytest.mark.parametrize("path", ["/v1/best", "/v1/studies", "/v1/queue", "/metrics", "/v1/nothing", "/v1/", "/v1"])
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic YTpi", "bearer  ", "Bearer \xff", f"Bearer {'x' * 9000}"],
)
def test_nobody_gets_near_the_api_without_a_token_that_opens(site, path, header):
    headers = {} if header is None else {"Authorization": header}
    status, _, found = site.service.ask("GET", path, headers=headers)
    assert status in (401, 429)
    assert "detail" in found


def test_guesses_are_slowed_down_and_those_who_have_a_token_are_not(site):
    statuses = {site.service.get("/v1/studies", f"guess{number}")[0] for number in range(100)}
    assert 429 in statuses
    assert site.service.get("/v1/studies", site.reader)[0] == 200


@pytest.mark.parametrize("text", [*INJECTIONS, *TRAVERSALS])
def test_names_are_names_and_nothing_else(site, text):
    status, _, _ = site.service.ask("POST", "/v1/studies", site.token, body={"study": text})
    assert status == 422
    question = question_of(Numbers(), {}, study=text, consumer=text, environ={}).sendable()
    status, _, found = site.service.get("/v1/best", site.token, question=question.to_json())
    assert status == 422 if "\x00" in text else found["match"] == "default"
    body = {"expected_version": 1, "reason": text, "to": text}
    assert site.service.ask("POST", "/v1/decisions/none/rollback", site.token, body=body)[0] == 422


@pytest.mark.parametrize("text", TRAVERSALS)
@pytest.mark.parametrize("path", ["/v1/studies/{}/best", "/v1/queue/{}", "/v1/decisions/{}", "/{}", "/v1/../{}"])
def test_paths_lead_nowhere_else(site, path, text):
    request = f"GET {path.format(text)} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {site.token}\r\n"
    status, found = _raw(site, f"{request}Connection: close\r\n\r\n".encode())
    assert status in (404, 422)
    assert "root:" not in found


@pytest.mark.parametrize("path", ["/v1/studies/{}/best", "/v1/studies/{}/decisions", "/v1/decisions/{}"])
def test_sql_in_paths_is_no_name(site, path):
    for text in ("%27%3B%20DROP%20TABLE%20decisions", "s%27--", "%00", "%ff", "a" * 5000):
        request = f"GET {path.format(text)} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {site.token}\r\n"
        assert _raw(site, f"{request}Connection: close\r\n\r\n".encode())[0] == 422


def test_large_bodies_are_refused_whether_announced_or_not(site):
    head = (
        f"POST /v1/studies HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {site.token}\r\nConnection: close\r\n"
    )
    announced = f"{head}Content-Type: application/json\r\nContent-Length: {100 * MIB}\r\n\r\n".encode()
    chunked = f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunk = b"100000\r\n" + b" " * MIB + b"\r\n"
    for text, piece in ((announced, b" " * MIB), (chunked, chunk)):
        assert _status_while_sending(site, text, piece) == 413


def _status_while_sending(site, text, piece):
    """Send up to 100 pieces, until an answer comes or nobody takes them any more."""
    with socket.create_connection(("127.0.0.1", site.service.port), timeout=60) as connection:
        connection.sendall(text)
        try:
            for _ in range(100):
                connection.sendall(piece)
        except OSError:
            pass
        return int(connection.recv(65536).split(b" ", 2)[1])


def test_large_body_of_somebody_unknown_is_not_even_read(site):
    head = "POST /v1/studies HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    status, _ = _raw(site, f"{head}Content-Length: {100 * MIB}\r\n\r\n".encode())
    assert status in (401, 413, 429)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::2]", "", "localhost@evil", "0"]
)
def test_requests_for_another_host_are_refused(site, host):
    request = f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    status, _ = _raw(site, request.encode())
    assert status == 403


def test_requests_with_no_host_or_two_are_refused(site):
    assert _raw(site, b"GET /healthz HTTP/1.0\r\n\r\n")[0] == 403
    assert _raw(site, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n")[0] == 403


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"study": "s", "command": "rm -rf /"}',
        b'{"study": ["s"]}',
        b'{"study": {"factory": "os:system"}}',
        b'{"study": "\\u0000"}',
        b'{"study": "\\ud800"}',
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"study": ' + b"1" * 10_000 + b"}",
    ],
    ids=range(12),
)
def test_bodies_that_are_no_request_are_refused(site, body):
    headers = {"Content-Type": "application/json"}
    status, _, found = site.service.ask("POST", "/v1/studies", site.token, body=body, headers=headers)
    assert status in (400, 422)
    assert "detail" in found


def _document(**changes):
    return {
        **json.loads(question_of(Numbers(), {}, study=None, consumer=None, environ={}).sendable().to_json()),
        **changes,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pins", {"batch_size": 10**400}),
        ("pins", {"batch_size": 2**63}),
        ("pins", {"batch_size": -1}),
        ("pins", {"archive": "../../etc"}),
        ("pins", {"__class__": "x"}),
        ("pins", {"num_workers": 0, "prefetch_factor": 2}),
        ("ranks_on_node", 0),
        ("ranks_on_node", 2**64),
        ("study", "\x00"),
        ("study", "\ud800"),
        ("archives", ["\x00"]),
        ("unknown", 1),
        ("schema_version", 2),
        ("machine", None),
    ],
)
def test_questions_that_no_training_asks_are_refused(site, field, value):
    status, _, found = site.service.get("/v1/best", site.token, question=json.dumps(_document(**{field: value})))
    assert status == 422, found
    assert len(found["detail"]) < 1000


@pytest.mark.parametrize("depth", [2, 250, 300, 900])
@pytest.mark.parametrize("place", ['"pins":{"num_workers":%s}', '"pins":%s', '"study":%s', '"archives":%s'])
def test_questions_that_are_nested_deeply_are_refused(site, place, depth):
    text = json.dumps({name: value for name, value in _document().items() if f'"{name}"' != place.partition(":")[0]})
    for nested in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        question = f"{text[:-1]},{place % nested}}}"
        assert site.service.get("/v1/best", site.token, question=question)[0] == 422


@pytest.mark.parametrize("text", ["{", "[" * 9000, "1" * 9000, "NaN", '"x"', "x" * 40_000, "\ud83d"])
def test_text_that_is_no_question_is_refused(site, text):
    query = text.encode(errors="surrogatepass")
    assert site.service.get("/v1/best", site.token, question=query)[0] == 422


@pytest.mark.parametrize(
    "changes",
    [
        {"structure": "float32[" + "9" * 5000 + "]", "declared": True},
        {"structure": "float32[" + "9,".join(["9" * 300] * 40) + "]", "declared": True, "length": 2**62},
        {"structure": "int" * 9000, "declared": True},
        {"length": -(2**62)},
    ],
    ids=["digits", "sides", "words", "negative"],
)
def test_facts_of_no_dataset_break_nothing(site, changes):
    document = _document()
    question = json.dumps({**document, "dataset": {**document["dataset"], **changes}})
    assert site.service.get("/v1/best", site.token, question=question)[0] in (200, 422)


@pytest.mark.parametrize(
    "text",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHo st: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    ],
    ids=range(6),
)
def test_what_is_no_http_is_refused(site, text):
    assert _raw(site, text)[0] in (400, 403)


def test_methods_that_a_path_has_not_are_refused(site):
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "CONNECT"):
        assert site.service.ask(method, "/v1/best", site.token)[0] in (400, 404, 405), method


def test_pages_that_load_scripts_from_elsewhere_are_not_there(site):
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert site.service.get(path)[0] == 404
    assert site.service.get("/openapi.json")[2]["info"]["title"] == "autotune"


def test_silent_connections_of_one_machine_keep_nobody_out(site):
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS_LIMIT + 50):
            to, source = ("127.0.0.1", site.service.port), ("127.0.0.2", 0)
            stack.enter_context(socket.create_connection(to, timeout=60, source_address=source))
        assert site.service.get("/healthz")[0] == 200
