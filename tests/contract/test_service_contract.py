"""What the service promises, as a process of its own over SQLite and a real PostgreSQL."""

import json
import threading
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from registry_values import Numbers, decision, decision_here, record
from service_process import add_token, running_service

from autotune.machine import machine_facts
from autotune.registry import open_registry
from autotune.resolve.best import best_config, question_of
from autotune.resolve.explain import explain
from autotune.resolve.lookup import answer
from autotune.resolve.resolution import Resolution
from autotune.spec import Decision, LoaderConfig, QueuedStudy

SCOPES = ("read", "tune", "review")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request, tmp_path_factory):
    """A service that runs, with the tokens `all`, `read` and the like, and its registry."""
    home, url = tmp_path_factory.mktemp("home"), None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").new_database()
    studies = home / "studies"
    studies.mkdir()
    for name in ("one", "two"):
        (studies / f"{name}.yaml").write_text(f"name: {name}\ndataset: pack:make\nbudget: 2m\n")
    tokens = {name: add_token(home, url, name=name, scopes=(name,)) for name in SCOPES}
    tokens["all"] = add_token(home, url, name="all", scopes=SCOPES)
    with running_service(home, url, "--studies", str(studies)) as service, open_registry(home, url) as registry:
        yield SimpleNamespace(service=service, registry=registry, tokens=tokens, home=home, url=url)


def _asked(question):
    return {"question": question.sendable().to_json()}


def _question(dataset, **pins):
    return question_of(dataset, pins, study=None, consumer=None, environ={})


def _dataset_of(number):
    """A dataset that no other test decides on."""
    return Numbers(1000 + number)


def test_answer_is_that_of_the_registry_itself_and_changes_with_it(site):
    dataset = _dataset_of(1)
    question = _question(dataset)
    status, headers, before = site.service.get("/v1/best", site.tokens["read"], **_asked(question))
    assert (status, before["match"]) == (200, "default")
    made = decision_here(dataset, LoaderConfig(num_workers=1), study="answers")
    site.registry.save_decision(made)
    tag = headers["ETag"]
    while headers["ETag"] == tag:
        status, headers, found = site.service.get("/v1/best", site.tokens["read"], **_asked(question))
        assert status == 200
    assert Resolution.from_json(json.dumps(found)) == answer(site.registry, question)
    assert found["decision_key"] == made.key


def test_client_that_has_the_answer_is_told_so_without_a_body(site):
    asked = _asked(_question(_dataset_of(2)))
    _, headers, _ = site.service.get("/v1/best", site.tokens["read"], **asked)
    known = {"If-None-Match": headers["ETag"]}
    status, again, body = site.service.ask("GET", "/v1/best", site.tokens["read"], headers=known, **asked)
    assert (status, again["ETag"], body) == (304, headers["ETag"], "")
    other = _asked(_question(_dataset_of(2), batch_size=7))
    assert site.service.ask("GET", "/v1/best", site.tokens["read"], headers=known, **other)[0] == 200


def test_training_elsewhere_gets_what_the_registry_would_give_it(site):
    dataset = _dataset_of(3)
    site.registry.save_decision(decision_here(dataset, LoaderConfig(num_workers=1), study="elsewhere"))
    environ = {"AUTOTUNE_URL": site.service.address, "AUTOTUNE_TOKEN": site.tokens["read"]}
    site.service.until(200, "/v1/studies/elsewhere/best", site.tokens["read"])
    home = site.home / "elsewhere"
    found = best_config(dataset, home=home, environ=environ, num_workers=0)
    here = {} if site.url is None else {"AUTOTUNE_STORAGE": site.url}
    assert found == best_config(dataset, home=site.home, environ=here, num_workers=0)
    assert found.study == "elsewhere"
    explained = explain(dataset, home=home, environ=environ)
    assert explained.decision == site.registry.decision(found.decision_key)
    assert list((home / "answers").glob("*.json"))


def test_study_answers_for_its_dataset_on_its_machine_or_another(site):
    made = decision(study="by_name")
    site.registry.save_decision(made)
    status, _, found = site.service.until(200, "/v1/studies/by_name/best", site.tokens["read"])
    assert (status, found["decision_key"], found["match"]) == (200, made.key, "exact")
    path, token = "/v1/studies/by_name/best", site.tokens["read"]
    _, _, elsewhere = site.service.get(path, token, machine=machine_facts().to_json())
    assert elsewhere["match"] == "default"
    assert site.service.get(path, token, machine="{}")[0] == 422
    assert site.service.get("/v1/studies/unknown/best", token)[0] == 404


def test_decisions_and_studies_are_listed(site):
    older, newer = decision(study="listed"), decision(study="listed", minute=1)
    for one in (older, newer):
        site.registry.save_decision(one)
    site.registry.save_record(record("listed", study="recorded"))
    token = site.tokens["read"]
    _, _, found = site.service.get("/v1/studies/listed/decisions", token)
    assert [Decision.model_validate(one) for one in found["decisions"]] == [newer, older]
    _, _, found = site.service.get("/v1/studies/listed/decisions", token, limit=1)
    assert len(found["decisions"]) == 1
    assert site.service.get("/v1/studies/unknown/decisions", token)[0] == 404
    assert {"listed", "recorded"} <= set(site.service.get("/v1/studies", token)[2]["studies"])
    _, _, found = site.service.get("/v1/studies/listed/events", token)
    assert {event["decision_key"] for event in found["events"]} == {newer.key, older.key}
    _, _, found = site.service.get("/v1/deployments", token)
    assert newer.key in [one["decision"]["key"] for one in found["deployments"] if one["decision"]]


def test_study_of_the_folder_is_queued_once(site):
    status, headers, first = site.service.ask("POST", "/v1/studies", site.tokens["tune"], body={"study": "one"})
    assert (status, first["state"], first["requested_by"]) == (202, "queued", "tune")
    _, _, again = site.service.ask("POST", "/v1/studies", site.tokens["tune"], body={"study": "one"})
    assert again == first
    assert site.service.get(headers["Location"], site.tokens["read"])[2] == first
    _, _, waiting = site.service.get("/v1/queue", site.tokens["read"])
    assert [one["key"] for one in waiting["queue"]] == [first["key"]]
    assert site.registry.queued_study(first["key"]) is not None
    site.registry.take_queued_study(first["key"], machine="m", at=datetime.now(UTC))
    _, _, anew = site.service.ask("POST", "/v1/studies", site.tokens["tune"], body={"study": "one"})
    assert anew["key"] != first["key"]
    assert site.service.get("/v1/queue/0123", site.tokens["read"])[0] == 404


def test_study_that_is_asked_for_by_many_at_once_is_queued_once(site):
    def ask():
        site.registry.queue_study(QueuedStudy(study="crowd", requested_by="x", requested_at=datetime.now(UTC)))

    asking = [threading.Thread(target=ask) for _ in range(8)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert len([one for one in site.registry.queued_studies() if one.study == "crowd"]) == 1


def test_study_that_waits_is_cancelled_and_one_that_a_machine_has_taken_is_not(site):
    token = site.tokens["tune"]
    _, headers, _ = site.service.ask("POST", "/v1/studies", token, body={"study": "two"})
    status, _, cancelled = site.service.ask("DELETE", headers["Location"], token)
    assert (status, cancelled["state"], cancelled["message"]) == (200, "cancelled", "cancelled by tune")
    assert site.service.ask("DELETE", headers["Location"], token)[2] == cancelled
    assert not site.registry.take_queued_study(cancelled["key"], machine="m", at=datetime.now(UTC))
    assert "two" not in [one["study"] for one in site.service.get("/v1/queue", site.tokens["read"])[2]["queue"]]

    _, headers, anew = site.service.ask("POST", "/v1/studies", token, body={"study": "two"})
    assert site.registry.take_queued_study(anew["key"], machine="m", at=datetime.now(UTC))
    status, _, found = site.service.ask("DELETE", headers["Location"], token)
    assert status == 409
    assert "which m took at" in found["detail"]
    assert site.registry.queued_study(anew["key"]).state == "running"
    assert site.service.ask("DELETE", "/v1/queue/0123", token)[0] == 404


@pytest.mark.parametrize("name", ["three", "../one", "one.yaml", "pack:make", "one; DROP TABLE decisions", ""])
def test_nothing_but_the_folders_studies_is_queued(site, name):
    before = site.registry.queued_studies()
    status, _, found = site.service.ask("POST", "/v1/studies", site.tokens["tune"], body={"study": name})
    assert status in (404, 422)
    assert found["detail"]
    assert site.registry.queued_studies() == before


REFUSALS = [
    ("GET", "/v1/studies", ("read",)),
    ("GET", "/v1/queue", ("read",)),
    ("GET", "/v1/waiting", ("read",)),
    ("GET", "/metrics", ("read",)),
    ("POST", "/v1/studies", ("tune",)),
    ("DELETE", "/v1/queue/k", ("tune",)),
    ("POST", "/v1/decisions/k/approve", ("review",)),
    ("POST", "/v1/decisions/k/reject", ("review",)),
    ("POST", "/v1/decisions/k/pin", ("review",)),
    ("POST", "/v1/decisions/k/unpin", ("review",)),
    ("POST", "/v1/decisions/k/rollback", ("review",)),
]


@pytest.mark.parametrize(("method", "path", "scopes"), REFUSALS)
def test_token_opens_what_its_scopes_name_alone(site, method, path, scopes):
    body = {"study": "none", "expected_version": 1, "reason": "r"} if method == "POST" else None
    body = {"study": "none"} if path == "/v1/studies" and body else body
    if body and "decisions" in path:
        del body["study"]
    for name in SCOPES:
        status, _, found = site.service.ask(method, path, site.tokens[name], body=body)
        assert (status == 403) == (name not in scopes), found
        assert status != 500
    assert site.service.ask(method, path, body=body)[0] == 401


def test_revoked_and_expired_tokens_open_nothing(site):
    short = add_token(site.home, site.url, name="short", expires_in_s=2)
    revoked = add_token(site.home, site.url, name="revoked")
    site.service.until(200, "/v1/studies", revoked)
    site.registry.revoke_token("revoked", at=datetime.now(UTC))
    status, headers, found = site.service.until(401, "/v1/studies", revoked)
    assert headers["WWW-Authenticate"].startswith("Bearer")
    assert "revoked" in found["detail"]
    site.service.until(401, "/v1/studies", short)
    assert status == 401


def test_health_needs_no_token_and_metrics_tell_what_was_asked(site):
    assert site.service.get("/healthz")[2]["status"] == "ok"
    site.service.get("/v1/no/such/path", site.tokens["read"])
    text = site.service.get("/metrics", site.tokens["read"])[2]
    assert 'autotune_requests_total{method="GET",path="/healthz",status="200"}' in text
    assert 'path="unmatched",status="404"' in text
    assert "autotune_registry_age_seconds" in text
    assert "no/such" not in text


def test_service_answers_to_the_names_that_it_was_given(tmp_path):
    with running_service(tmp_path, None, "--allow-host", "tuner, other:80", "--allow-host", "Third") as service:
        port = service.port
        for host in ("tuner", f"other:{port}", "THIRD", "localhost", "127.0.0.1", "[::1]"):
            assert service.ask("GET", "/healthz", headers={"Host": host})[0] == 200, host
        assert service.ask("GET", "/healthz", headers={"Host": "fourth"})[0] == 403


def test_reviewers_who_decide_at_once_get_one_decision_and_one_conflict(site):
    old, new = decision(study="fought"), decision(study="fought", minute=1, config=LoaderConfig(num_workers=3))
    site.registry.save_decision(old)
    site.registry.save_decision(new, promotion="review")
    token = site.tokens["all"]
    _, _, found = site.service.get("/v1/waiting", token)
    waiting = next(one for one in found["waiting"] if one["decision"]["key"] == new.key)
    version = waiting["deployment"]["version"]
    done = []

    def decide(verb):
        body = {"expected_version": version, "reason": f"because I {verb}"}
        done.append((verb, site.service.ask("POST", f"/v1/decisions/{new.key}/{verb}", token, body=body)))

    deciding = [threading.Thread(target=decide, args=(verb,)) for verb in ("approve", "reject")]
    for one in deciding:
        one.start()
    for one in deciding:
        one.join()
    statuses = {verb: answer[0] for verb, answer in done}
    assert sorted(statuses.values()) == [200, 409], done
    conflict = next(answer[2]["detail"] for _, answer in done if answer[0] == 409)
    assert "all" in conflict
    deployed = site.registry.deployment_of(new.key).decision
    assert deployed == (new if statuses["approve"] == 200 else old)
    _, _, told = site.service.get(f"/v1/decisions/{new.key}", token)
    assert [event["action"] for event in told["events"]][-1] == "waiting"
    assert len(told["events"]) == 2


def test_decision_is_pinned_and_rolled_back_with_a_reason(site):
    old, new = decision(study="turned"), decision(study="turned", minute=1, config=LoaderConfig(num_workers=3))
    for one in (old, new):
        site.registry.save_decision(one)
    token, path = site.tokens["review"], f"/v1/decisions/{new.key}"

    def post(verb, **body):
        version = site.registry.deployment_of(new.key).version
        return site.service.ask("POST", f"{path}/{verb}", token, body={"expected_version": version, **body})

    assert post("pin")[0] == 422
    status, _, event = post("pin", reason="the paper")
    assert (status, event["action"], event["actor"], event["reason"]) == (200, "pinned", "review", "the paper")
    assert post("rollback", reason="slow")[0] == 409
    assert post("unpin")[0] == 200
    status, _, event = post("rollback", reason="slow")
    assert (status, event["action"]) == (200, "rolled_back")
    assert site.registry.deployment_of(new.key).decision == old
    body = {"expected_version": 1, "reason": "the paper"}
    assert site.service.ask("POST", "/v1/decisions/none/pin", token, body=body)[0] == 404
