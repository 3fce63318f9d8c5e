"""What the pages promise, as a process of its own over SQLite and a real PostgreSQL, asked as browsers ask."""

import itertools
import re
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from page_visits import Visit
from report_pages import Page
from reviewed_studies import FIRST, OTHER, SECOND, STUDY, fill, gain, make_optuna_study
from service_process import add_token, running_service

from autotune.registry import open_registry

_numbers = itertools.count()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request, tmp_path_factory):
    """A service that runs over a team's registry, with tokens of somebody who decides and of one who looks."""
    home, url = tmp_path_factory.mktemp("home"), None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").new_database()
    else:
        make_optuna_study(home)
    studies = home / "studies"
    studies.mkdir()
    (studies / f"{OTHER}.yaml").write_text(f"name: {OTHER}\ndataset: pack:make\nbudget: 2m\n")
    tokens = {
        "ada": add_token(home, url, name="ada", scopes=("read", "tune", "review")),
        "bob": add_token(home, url, name="bob", scopes=("read", "review")),
        "guest": add_token(home, url, name="guest"),
        "robot": add_token(home, url, name="robot", scopes=("tune",)),
    }
    with open_registry(home, url) as registry:
        decisions = fill(registry)
        options = ("--studies", str(studies), "--mlflow", "http://mlflow.example.org")
        with running_service(home, url, *options) as service:
            yield SimpleNamespace(service=service, registry=registry, tokens=tokens, home=home, url=url, **decisions)


@pytest.fixture
def ada(site):
    return Visit(site.service).log_in(site.tokens["ada"])


@pytest.fixture
def fresh(site):
    """A study of this test's own, with a deployed and a waiting decision; gives both."""
    study = f"own{next(_numbers)}"
    deployed, waiting = gain(FIRST, minute=0, mean=1.8, study=study), gain(SECOND, minute=1, mean=2.8, study=study)
    site.registry.save_decision(deployed)
    site.registry.save_decision(waiting, promotion="review")
    return SimpleNamespace(study=study, deployed=deployed, waiting=waiting)


def version(site, study):
    return site.registry.deployments(study)[0].version


def deployed(site, study):
    return site.registry.deployments(study)[0].decision


def pages_of(site):
    return [
        "/", "/waiting", "/history", f"/history?study={STUDY}", "/nights", f"/nights/{site.registry.nights()[0].key}",
        "/queue", f"/studies/{STUDY}", f"/studies/{OTHER}", f"/decisions/{site.deployed.key}",
        f"/decisions/{site.waiting.key}", f"/compare?a={site.deployed.key}&b={site.waiting.key}",
    ]  # fmt: skip


def test_every_page_is_whole_and_needs_nothing_of_elsewhere(site, ada):
    for path in pages_of(site):
        status, headers, text = ada.get(path)
        assert status == 200, path
        page = Page(text)
        assert all(address.startswith(("/static/", "data:")) for address in _loaded(page)), path
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy.partition("script-src")[2].partition(";")[0]
        assert page.programs() in ([], ["", ""]), "no script within the page"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "no-store" in headers["Cache-Control"]


def _loaded(page):
    links = [attrs["href"] for tag, attrs in page.elements if tag == "link"]
    return [*links, *(attrs["src"] for _, attrs in page.elements if "src" in attrs)]


def test_whatever_pages_link_to_is_there(site, ada):
    seen, waiting = set(), ["/"]
    while waiting:
        path = waiting.pop().partition("#")[0]
        if path in seen or not path.startswith("/"):
            continue
        seen.add(path)
        status, _, text = ada.get(path)
        assert status == 200, path
        if not path.startswith("/static/"):
            waiting += [address.replace("&amp;", "&") for address in Page(text).attribute("href")]
    assert {"/waiting", "/nights", "/queue", "/history", f"/studies/{STUDY}", f"/decisions/{site.waiting.key}"} <= seen


def test_pages_show_what_is_known(site, ada):
    decision = Page(ada.get(f"/decisions/{site.waiting.key}")[2])
    assert "2.84 ×" in decision.text
    assert "95 % interval 2.70 to 2.98, 6 interleaved pairs" in decision.text
    assert "The search tried 24 configurations." in decision.text
    assert len(decision.figures()) >= 5
    night = Page(ada.get(f"/nights/{site.registry.nights()[0].key}")[2])
    assert "the data set cannot be opened" in night.text.lower()
    compared = Page(ada.get(f"/compare?a={site.deployed.key}&b={site.waiting.key}")[2])
    assert "do not overlap" in compared.text
    queue = Page(ada.get("/queue")[2])
    assert "waits for review" in queue.text


def test_nobody_sees_a_page_without_a_login_and_everybody_lands_where_they_wanted(site):
    for path in [*pages_of(site), "/decisions/none"]:
        status, headers, text = Visit(site.service).get(path)
        assert status == 303, path
        assert headers["Location"].startswith("/login?next=")
        assert text == ""
    visit = Visit(site.service)
    assert (
        visit.post("/login", token=site.tokens["guest"], next="/history?study=s")[1]["Location"] == "/history?study=s"
    )


@pytest.mark.parametrize(
    "address", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:x", "/\tx"]
)
def test_a_login_leads_to_no_other_site(site, address):
    status, headers, _ = Visit(site.service).post("/login", token=site.tokens["guest"], next=address)
    assert (status, headers["Location"]) == (303, "/")


def test_link_on_another_site_reaches_a_page_with_the_login_that_browsers_withhold(site):
    status, _, text = Visit(site.service).get("/waiting", headers={"Sec-Fetch-Site": "cross-site"})
    assert status == 200
    assert "0; url=/login?next=%2Fwaiting" in Page(text).attribute("content")
    assert Visit(site.service).get("/waiting", headers={"Sec-Fetch-Site": "same-origin"})[0] == 303
    status, headers, _ = Visit(site.service).log_in(site.tokens["guest"]).get("/login?next=%2Fwaiting")
    assert (status, headers["Location"]) == (303, "/waiting")


def test_cookie_is_kept_from_scripts_and_other_sites_and_holds_no_token(site):
    _, headers, _ = Visit(site.service).post("/login", token=site.tokens["guest"])
    cookie = headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert site.tokens["guest"] not in cookie


@pytest.mark.parametrize(
    "change", [lambda value: value[:-2], lambda value: "x" + value, lambda _: "", lambda _: "a.b.c"]
)
def test_cookie_that_was_not_signed_here_opens_nothing(site, ada, change):
    ada.cookies = {name: change(value) for name, value in ada.cookies.items()}
    assert ada.get("/")[0] == 303


def test_wrong_token_opens_nothing(site):
    status, headers, text = Visit(site.service).post("/login", token="wrong")
    assert status == 401
    assert "Set-Cookie" not in headers
    assert "opens nothing" in text


def test_revoking_a_token_ends_its_login(site):
    token = add_token(site.home, site.url, name="soon")
    site.service.until(200, "/v1/studies", token)
    visit = Visit(site.service).log_in(token)
    assert visit.get("/")[0] == 200
    site.registry.revoke_token("soon", at=datetime.now(UTC))
    site.service.until(401, "/v1/studies", token)
    assert visit.get("/")[0] == 303


def test_logging_out_forgets_who_was_here(ada):
    assert ada.post("/logout")[0] == 303
    assert ada.get("/")[0] == 303


def test_link_that_the_process_printed_opens_everything_and_other_tokens_are_no_part_of_an_address(site):
    visit = Visit(site.service)
    status, headers, _ = visit.get(f"/login?token={site.service.own_token}")
    assert (status, headers["Location"]) == (303, "/")
    assert visit.get("/waiting")[0] == 200
    assert site.service.get("/v1/studies", site.service.own_token)[0] == 200
    assert all(token.name in {*site.tokens, "soon"} for token in site.registry.tokens())
    assert Visit(site.service).get(f"/login?token={site.tokens['ada']}")[0] == 401


@pytest.mark.long
def test_login_outlives_the_process_where_the_token_does(tmp_path):
    token, visits = add_token(tmp_path, name="ada"), []
    for _ in range(2):
        with running_service(tmp_path) as service:
            visit = Visit(service)
            visit.cookies = visits[-1].cookies if visits else visit.log_in(token).cookies
            assert visit.get("/")[0] == 200
            own = Visit(service)
            own.get(f"/login?token={service.own_token}")
            visits += [own, visit]
    with running_service(tmp_path) as service:
        gone = Visit(service)
        gone.cookies = visits[0].cookies
        assert gone.get("/")[0] == 303, "a token of a process ends with it"


def test_approving_deploys_and_says_who(site, ada, fresh):
    seen = version(site, fresh.study)
    path = f"/decisions/{fresh.waiting.key}"
    status, headers, _ = ada.post(f"{path}/approve", expected_version=seen, reason="")
    assert (status, headers["Location"]) == (303, path)
    assert deployed(site, fresh.study).key == fresh.waiting.key
    event = site.registry.events(fresh.study)[0]
    assert (event.action, event.actor) == ("approved", "ada")


def test_rejecting_keeps_what_is_deployed_with_the_reason(site, ada, fresh):
    ada.post(f"/decisions/{fresh.waiting.key}/reject", expected_version=version(site, fresh.study), reason="8 workers")
    assert deployed(site, fresh.study).key == fresh.deployed.key
    assert site.registry.waiting(fresh.study) == []
    assert "8 workers" in ada.get(f"/decisions/{fresh.waiting.key}")[2]


def test_pin_unpin_and_roll_back(site, ada, fresh):
    path = f"/decisions/{fresh.deployed.key}"
    assert ada.post(f"{path}/pin", expected_version=version(site, fresh.study), reason="paper")[0] == 303
    assert "unpin it" in ada.get(f"/decisions/{fresh.waiting.key}")[2]
    assert ada.post(f"{path}/unpin", expected_version=version(site, fresh.study), reason="")[0] == 303
    assert ada.post(f"{path}/rollback", expected_version=version(site, fresh.study), reason="slow", to="")[0] == 303
    assert deployed(site, fresh.study) is None
    assert [event.action for event in site.registry.events(fresh.study)][:3] == ["rolled_back", "unpinned", "pinned"]


def test_rolling_back_to_a_named_decision(site, ada, fresh):
    ada.post(f"/decisions/{fresh.waiting.key}/approve", expected_version=version(site, fresh.study), reason="")
    form = Page(ada.get(f"/decisions/{fresh.waiting.key}")[2])
    assert FIRST.label() in form.text
    ada.post(
        f"/decisions/{fresh.waiting.key}/rollback", expected_version=version(site, fresh.study), reason="slow",
        to=fresh.deployed.key,
    )  # fmt: skip
    assert deployed(site, fresh.study).key == fresh.deployed.key


def test_second_of_two_reviewers_is_told_who_decided_and_keeps_what_was_written(site, ada, fresh):
    bob = Visit(site.service).log_in(site.tokens["bob"])
    path, seen = f"/decisions/{fresh.waiting.key}", version(site, fresh.study)
    for visit in (ada, bob):
        assert f'value="{seen}"' in visit.get(path)[2]
    assert ada.post(f"{path}/approve", expected_version=seen, reason="fine by me")[0] == 303
    status, _, text = bob.post(f"{path}/reject", expected_version=seen, reason="needs <too> many workers")
    assert status == 409
    page = Page(text)
    assert "ada has approved" in page.text
    assert "fine by me" in page.text
    assert "needs <too> many workers" in page.text
    assert path in page.attribute("href")
    assert deployed(site, fresh.study).key == fresh.waiting.key


@pytest.mark.parametrize("verdict", ["reject", "pin", "rollback"])
def test_reason_is_asked_for(site, ada, fresh, verdict):
    key = fresh.waiting.key if verdict == "reject" else fresh.deployed.key
    before = len(site.registry.events(fresh.study))
    for reason in ("", "  \n "):
        status, _, text = ada.post(
            f"/decisions/{key}/{verdict}", expected_version=version(site, fresh.study), reason=reason
        )
        assert status == 422
        assert "Say why" in text
    assert len(site.registry.events(fresh.study)) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"reason": "x"},
        {"expected_version": "one", "reason": "x"},
        {"expected_version": "0", "reason": "x"},
        {"expected_version": "99999999999999999999", "reason": "x"},
        {"expected_version": "1", "reason": "x" * 3000},
        {"expected_version": "1", "reason": "\x00"},
        {"expected_version": "1", "reason": "x", "actor": "somebody else"},
        {"expected_version": "1", "reason": "x", "a": "1", "b": "2", "c": "3", "d": "4"},
    ],
)
def test_form_that_is_none_of_ours_changes_nothing(site, ada, fresh, fields):
    before = site.registry.events(fresh.study)
    status, _, text = ada.post(f"/decisions/{fresh.waiting.key}/reject", **fields)
    assert status in (400, 422)
    assert "<html" in text
    assert site.registry.events(fresh.study) == before


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "https://evil.example",
        "http://127.0.0.1:1",
        "http://127.0.0.1",
        "http://[",
        "127.0.0.1",
        "http://a:b",
    ],
)
def test_form_of_another_site_changes_nothing(site, ada, fresh, origin):
    seen = version(site, fresh.study)
    for path in (f"/decisions/{fresh.waiting.key}/approve", "/logout", "/login"):
        status, _, _ = ada.post(path, origin=origin, expected_version=seen, reason="x", token=site.tokens["bob"])
        assert status == 403
    assert version(site, fresh.study) == seen
    assert ada.get("/")[0] == 200


def test_those_who_may_only_look_get_no_form_and_decide_nothing(site, fresh):
    guest = Visit(site.service).log_in(site.tokens["guest"])
    path, seen = f"/decisions/{fresh.waiting.key}", version(site, fresh.study)
    assert "approve" not in str(Page(guest.get(path)[2]).attribute("formaction"))
    assert guest.post(f"{path}/approve", expected_version=seen, reason="x")[0] == 403
    assert guest.post("/queue", study=OTHER)[0] == 403
    assert version(site, fresh.study) == seen
    robot = Visit(site.service)
    robot.post("/login", token=site.tokens["robot"])
    assert robot.get("/")[0] == 403


def test_form_after_the_login_ended_asks_to_log_in(site, fresh):
    status, _, text = Visit(site.service).post(
        f"/decisions/{fresh.waiting.key}/approve", expected_version=1, reason="x"
    )
    assert status == 401
    assert "not logged in any more" in text


def test_decisions_that_are_not_there_are_said_to_be(site, ada):
    for path in (
        "/decisions/none",
        "/studies/none",
        "/nights/none",
        "/compare",
        "/compare?a=x&b=y",
        "/static/x",
        "/no",
    ):
        status, headers, text = ada.get(path)
        assert status == 404, path
        assert headers["Content-Type"].startswith("text/html")
        Page(text)
    assert ada.post("/decisions/none/approve", expected_version=1, reason="")[0] == 404


@pytest.mark.parametrize(
    "text", ["%00", "%ff", "a" * 5000, "%27%3B%20DROP%20TABLE%20decisions", "..%2f..%2fetc%2fpasswd"]
)
@pytest.mark.parametrize(
    "path", ["/studies/{}", "/decisions/{}", "/nights/{}", "/compare?a={}", "/history?study={}", "/static/{}"]
)
def test_hostile_addresses_lead_nowhere(ada, path, text):
    status, _, page = ada.get(path.format(text))
    assert status in ((200, 404) if "history" in path else (404,))
    Page(page)


def test_what_people_write_is_text_and_never_markup(site, ada, fresh):
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    ada.post(f"/decisions/{fresh.deployed.key}/pin", expected_version=version(site, fresh.study), reason=hostile)
    for path in (f"/decisions/{fresh.deployed.key}", "/history", f"/studies/{fresh.study}"):
        text = ada.get(path)[2]
        assert hostile in Page(text).text
        assert "<img src=x" not in text


def test_a_study_file_is_queued_from_its_page(site, ada):
    before = len(site.registry.queued_studies())
    assert ada.post("/queue", study="../secret")[0] == 422
    assert ada.post("/queue", study=OTHER)[0] == 303
    assert len(site.registry.queued_studies()) == before, "one that waits already is not queued twice"


def test_optuna_dashboard_is_behind_the_login_and_changes_nothing(site, ada):
    port = site.service.dashboard_port
    status, headers, _ = Visit(site.service).get("/dashboard", port=port)
    assert (status, headers["Location"]) == (303, f"http://127.0.0.1:{site.service.port}/login")
    assert Visit(site.service).get("/api/studies", port=port)[0] == 303
    status, headers, _ = ada.get("/dashboard", port=port)
    assert status == 200
    assert "frame-ancestors 'none'" in str(headers.get_all("Content-Security-Policy"))
    before = ada.get("/api/studies", port=port)[2]
    for method, path in [
        ("POST", "/api/studies"), ("DELETE", "/api/studies/1"), ("POST", "/api/studies/1/rename"),
        ("PUT", "/api/studies/1/note"), ("POST", "/api/trials/1/tell"), ("PATCH", "/api/studies/1"), ("OPTIONS", "/"),
    ]:  # fmt: skip
        assert ada.ask(method, path, port=port)[0] == 403, path
    assert ada.get("/api/studies", port=port)[2] == before
    assert ada.get("/dashboard", port=port, headers={"Host": "evil.example"})[0] == 403


def test_pages_lead_to_the_study_in_optuna_and_mlflow(site, ada):
    links = Page(ada.get(f"/studies/{STUDY}")[2]).attribute("href")
    assert f"http://mlflow.example.org/#/experiments?experimentSearchFilter={STUDY}" in links
    found = [link for link in links if f":{site.service.dashboard_port}/dashboard/studies/" in link]
    assert bool(found) == (site.url is None), "the study is in the SQLite file alone"
    for link in found:
        number = re.search(r"(\d+)$", link)[1]
        assert STUDY in ada.get(f"/api/studies/{number}", port=site.service.dashboard_port)[2]


def test_assets_are_kept_by_browsers_and_come_compressed(site):
    address = next(path for path in _loaded(Page(Visit(site.service).get("/login")[2])) if path.startswith("/static/"))
    status, headers, _ = Visit(site.service).get(address)
    assert (status, headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    assert "immutable" in headers["Cache-Control"]
