"""Asking the service: its answers, its last answers, and everything that is none."""

import json
import os
import warnings

import numpy as np
import pytest
from odd_servers import dripping, scripted, silent
from registry_values import Numbers, decision_here

from autotune.errors import RegistryError
from autotune.machine import machine_facts
from autotune.registry import open_registry
from autotune.resolve.best import best_config, best_loader, question_of
from autotune.resolve.explain import explain
from autotune.resolve.kept_answers import FOLDER, KEPT_MAX, KeptAnswers
from autotune.resolve.lookup import answer, default_answer
from autotune.resolve.remote import Remote
from autotune.resolve.resolution import AutotuneWarning, Resolution
from autotune.spec import LoaderConfig


def _question(**pins):
    return question_of(Numbers(), pins, study=None, consumer=None, environ={})


def _answer(question, **config):
    given = default_answer(question, ("it was told",))
    return given.replace(config={**given.config.model_dump(), **config}, match="exact", study="s")


class Clock:
    def __init__(self):
        self.now = 1e9

    def __call__(self):
        return self.now


@pytest.fixture
def server():
    with scripted() as serving:
        yield serving


def test_answer_of_the_service_is_served_and_asked_for_with_the_token(server, tmp_path):
    question = _question()
    server.body = _answer(question, num_workers=1).to_json().encode()
    found = Remote(server.address + "/", " secret\n").answer(question, home=tmp_path)
    assert (found.config.num_workers, found.match, found.study) == (1, "exact", "s")
    path, headers = server.requests[0]
    assert path.startswith("/v1/best?question=%7B")
    assert headers["Authorization"] == "Bearer secret"


def test_fields_that_a_newer_service_adds_are_left_out(server, tmp_path):
    document = json.loads(_answer(_question()).to_json())
    server.body = json.dumps({**document, "confidence": 0.9}).encode()
    assert Remote(server.address, None).answer(_question(), home=tmp_path).match == "exact"


def test_kept_answer_is_confirmed_by_its_tag(server, tmp_path):
    clock = Clock()
    server.body, server.headers = _answer(_question()).to_json().encode(), {"ETag": '"1"'}
    Remote(server.address, None, clock=clock).answer(_question(), home=tmp_path)
    server.status, server.body = 304, b""
    clock.now += 1000
    found = Remote(server.address, None, clock=clock).answer(_question(), home=tmp_path)
    assert found.match == "exact"
    assert server.requests[1][1]["If-None-Match"] == '"1"'
    kept = KeptAnswers(tmp_path, server.address).find(_question().sendable(), now_s=clock.now + 5)
    assert kept.age_s == 5


GARBAGE = [
    b"",
    b"<html>it works</html>",
    b"[]",
    b"null",
    b"{}",
    b'{"schema_version": 2}',
    b'{"schema_version": 1, "config": {"batch_size": -1}, "match": "exact", "why": []}',
    b'{"schema_version": 1, "config": {"batch_size": NaN}, "match": "exact", "why": []}',
    b"\xff\xfe" * 100,
    b"[" * 100_000,
    b"1" * 10_000,
    b"x" * (2 * 1024 * 1024),
]


@pytest.mark.parametrize("body", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_no_answer(server, tmp_path, body):
    server.body = body
    with pytest.raises(RegistryError, match=r"cannot be used"):
        Remote(server.address, None).answer(_question(), home=tmp_path)
    assert not (tmp_path / FOLDER).exists()


MISFITS = [
    {"num_workers": 100_000},
    {"num_workers": 1, "prefetch_factor": 3},
    {"archive": "tar", "order": "streaming"},
]


@pytest.mark.parametrize("config", MISFITS, ids=str)
def test_answer_to_another_question_is_none(server, tmp_path, config):
    question = _question(**({"prefetch_factor": 2} if "prefetch_factor" in config else {}))
    server.body = _answer(question, **config).to_json().encode()
    with pytest.raises(RegistryError, match="another question"):
        Remote(server.address, None).answer(question, home=tmp_path)


def test_what_was_fastest_with_more_workers_than_cpus_is_served_to_a_process_that_is_alone(server, tmp_path):
    dataset, many = Numbers(), machine_facts().cpu_count * 2
    config = LoaderConfig(num_workers=many).canonical(has_accelerator=False)
    with open_registry(tmp_path / "service") as registry:
        registry.save_decision(decision_here(dataset, config))
        server.body = answer(registry, _question()).to_json().encode()
    assert Remote(server.address, None).answer(_question(), home=tmp_path).config.num_workers == many
    beside = _question().replace(ranks_on_node=2)
    server.body = _answer(beside, num_workers=many).replace(decision_key="k").to_json().encode()
    with pytest.raises(RegistryError, match=f"{many} workers"):
        Remote(server.address, None).answer(beside, home=tmp_path)


def test_answer_for_other_ranks_is_none(server, tmp_path):
    server.body = _answer(_question()).replace(ranks_on_node=2).to_json().encode()
    with pytest.raises(RegistryError, match="another question"):
        Remote(server.address, None).answer(_question(), home=tmp_path)


@pytest.mark.parametrize("status", [201, 204, 301, 302, 304, 401, 403, 404, 422, 429, 500, 502, 503])
def test_every_other_status_is_no_answer_and_redirections_are_not_followed(server, tmp_path, status):
    server.status, server.body = status, json.dumps({"detail": "because  \n of this"}).encode()
    server.headers = {"Location": f"{server.address}/elsewhere"}
    with pytest.raises(RegistryError, match=str(status)) as told:
        Remote(server.address, "secret").answer(_question(), home=tmp_path)
    assert "secret" not in str(told.value)
    assert len(server.requests) == 1
    if status >= 400:
        assert "because of this" in str(told.value)


def test_service_that_failed_is_not_asked_again(server, tmp_path):
    server.status = 500
    remote = Remote(server.address, None)
    for _ in range(3):
        with pytest.raises(RegistryError, match="500"):
            remote.answer(_question(), home=tmp_path)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "make",
    [
        silent,
        dripping,
        lambda: dripping(b"HTTP/1.1 200 OK\r\n"),
        lambda: dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"),
        lambda: dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        lambda: dripping(b"HTTP/1.1 500 No\r\nContent-Length: 9000\r\n\r\n"),
    ],
    ids=["silent", "bytes", "headers", "body", "chunks", "error"],
)
def test_service_that_hangs_or_drips_is_given_up_in_time(tmp_path, make):
    with make() as address, pytest.raises(RegistryError):
        Remote(address, None, ask_s=0.5).answer(_question(), home=tmp_path)


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/", "file:///etc/passwd", "tuner:8642", "http://", "http://[", "http://host:port", "http://a b",
        "http://ü.example", "http://127.0.0.1:99999", "http://127.0.0.1:1", "http://name.invalid", "https://127.0.0.1:1",
    ],
)  # fmt: skip
def test_address_that_leads_nowhere_ends_in_the_default_with_a_warning(tmp_path, address):
    environ = {"AUTOTUNE_URL": address, "AUTOTUNE_TOKEN": "secret"}
    with pytest.warns(AutotuneWarning, match="service") as told:
        found = best_config(Numbers(), home=tmp_path, environ=environ)
    assert (found.match, found.config) == ("default", LoaderConfig(batch_size=32))
    assert "secret" not in str([str(one.message) for one in told])


@pytest.mark.parametrize("token", ["new\nline", "sp ace", "ü", "x" * 1000])
def test_token_that_is_none_is_never_sent_nor_told(server, tmp_path, token):
    with pytest.raises(RegistryError, match="AUTOTUNE_TOKEN") as told:
        Remote(server.address, token).answer(_question(), home=tmp_path)
    assert server.requests == []
    assert token not in str(told.value)


def test_password_of_an_address_is_not_told(tmp_path):
    with pytest.raises(RegistryError) as told:
        Remote("http://user:hidden@127.0.0.1:1", None).answer(_question(), home=tmp_path)
    assert "hidden" not in str(told.value)


def test_last_answer_counts_while_the_service_is_away_and_says_how_old_it_is(server, tmp_path):
    clock, question = Clock(), _question(batch_size=4)
    server.body = _answer(question, num_workers=1).to_json().encode()
    Remote(server.address, None, clock=clock).answer(question, home=tmp_path)
    server.status, clock.now = 500, clock.now + 7200
    with pytest.warns(AutotuneWarning, match="last answer, 2 h old"):
        found = Remote(server.address, None, clock=clock).answer(question, home=tmp_path)
    assert found.config.num_workers == 1
    assert "2 h old" in found.why[-1]
    with pytest.raises(RegistryError):
        Remote(server.address, None, clock=clock).answer(_question(batch_size=5), home=tmp_path)
    with pytest.raises(RegistryError):
        Remote(server.address.replace("127.0.0.1", "localhost"), None).answer(question, home=tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"etag": 1, "at_s": "x", "resolution": {}}', b"\xff"])
def test_damaged_last_answer_is_none(server, tmp_path, content):
    server.body = _answer(_question()).to_json().encode()
    Remote(server.address, None).answer(_question(), home=tmp_path)
    (file,) = (tmp_path / FOLDER).glob("*.json")
    file.write_bytes(content)
    server.status = 500
    with pytest.raises(RegistryError):
        Remote(server.address, None).answer(_question(), home=tmp_path)


def test_last_answer_that_was_tampered_with_is_none(server, tmp_path):
    server.body = _answer(_question()).to_json().encode()
    Remote(server.address, None).answer(_question(), home=tmp_path)
    (file,) = (tmp_path / FOLDER).glob("*.json")
    document = json.loads(file.read_text())
    document["resolution"]["config"]["num_workers"] = 100_000
    file.write_text(json.dumps(document))
    server.status = 500
    with pytest.raises(RegistryError):
        Remote(server.address, None).answer(_question(), home=tmp_path)


def test_answers_are_served_where_they_cannot_be_kept(server, tmp_path):
    server.body = _answer(_question()).to_json().encode()
    home = tmp_path / "file"
    home.write_text("no folder")
    assert Remote(server.address, None).answer(_question(), home=home).match == "exact"


def test_oldest_last_answers_go_first(tmp_path):
    kept = KeptAnswers(tmp_path, "http://x")
    for number in range(KEPT_MAX + 3):
        question = _question(batch_size=number + 1).sendable()
        kept.keep(question, _answer(question), etag=None, now_s=0)
        newest = max((tmp_path / FOLDER).glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    assert len(list((tmp_path / FOLDER).iterdir())) == KEPT_MAX
    assert kept.find(_question(batch_size=1).sendable(), now_s=0) is None
    assert kept.find(_question(batch_size=KEPT_MAX + 3).sendable(), now_s=0) is not None


def test_question_is_sent_alike_from_machines_of_one_kind_with_numbers_of_numpy(server, tmp_path):
    plain, other = _question(batch_size=4), _question(batch_size=np.int64(4))
    other = other.replace(machine=other.machine.replace(host="elsewhere"))
    assert plain.sendable().to_json() == other.sendable().to_json()
    server.body = _answer(plain).to_json().encode()
    assert Remote(server.address, None).answer(other, home=tmp_path).config.batch_size == 4


def test_loader_asks_once_and_serves_what_it_was_told(server, tmp_path):
    server.body = _answer(_question(batch_size=4), num_workers=1).to_json().encode()
    environ = {"AUTOTUNE_URL": server.address}
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutotuneWarning)
        loader = best_loader(Numbers(), batch_size=4, home=tmp_path, environ=environ)
    assert (loader.num_workers, loader.batch_size) == (1, 4)
    assert len(server.requests) == 1


def test_explanation_is_what_the_service_tells(server, tmp_path):
    question = _question(batch_size=4)
    told = _answer(question, num_workers=1).replace(decision_key="k")
    server.body = told.to_json().encode()
    found = explain(Numbers(), home=tmp_path, environ={"AUTOTUNE_URL": server.address}, batch_size=4)
    assert found.resolution == told
    assert found.decision is None
    assert "match: exact" in found.lines
    assert server.requests[1][0] == "/v1/decisions/k"


def test_answer_comes_back_from_its_file_as_it_was(tmp_path):
    question = _question().sendable()
    kept, given = KeptAnswers(tmp_path, "http://x"), _answer(question, num_workers=1)
    kept.keep(question, given, etag='"t"', now_s=100.0)
    found = kept.find(question, now_s=50.0)
    assert (found.resolution, found.etag, found.age_s) == (given, '"t"', 0.0)
    assert isinstance(found.resolution, Resolution)
