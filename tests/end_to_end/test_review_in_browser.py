"""The review path as a person takes it: a real browser, a real server, a registry with evidence.

`AUTOTUNE_TEST_SHOTS=FOLDER` keeps a picture of every page, on a desk and on a phone, to be looked at.
"""

import os
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from browsers import BROWSER, DESK, MISSING, PHONE, started, until
from reviewed_studies import FIRST, OTHER, SECOND, STUDY, fill, make_optuna_study
from service_process import add_token, running_service

from autotune.registry import open_registry

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason=MISSING)]
pytest.importorskip("playwright")

SHOTS = os.environ.get("AUTOTUNE_TEST_SHOTS")
ALL_DRAWN = "document.querySelectorAll('[data-figure]').length === document.querySelectorAll('.js-plotly-plot').length"
LOW = "[...document.querySelectorAll('button, .button')].filter(it => it.getBoundingClientRect().height < 32).length"
"""Buttons that a finger does not hit; those in closed lists were opened before."""


@pytest.fixture(scope="module")
def browser():
    with started() as running:
        yield running


@pytest.fixture
def site(tmp_path):
    """A service of this test's own over a team's registry."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / f"{OTHER}.yaml").write_text(f"name: {OTHER}\ndataset: pack:make\nbudget: 2m\n")
    make_optuna_study(tmp_path)
    bob = add_token(tmp_path, name="bob", scopes=("read", "review"))
    with open_registry(tmp_path) as registry:
        decisions = fill(registry)
        with running_service(tmp_path, None, "--studies", str(tmp_path / "studies")) as service:
            link = f"{service.address}/login?token={service.own_token}"
            yield SimpleNamespace(service=service, registry=registry, link=link, bob=bob, **decisions)


@pytest.fixture
def opened(browser):
    """Opens windows; each tells what it asked for and what it complained of."""
    contexts = []

    def open_window(size=DESK):
        context = browser.new_context(viewport=size, has_touch=size is PHONE, is_mobile=size is PHONE)
        contexts.append(context)
        page = context.new_page()
        page.asked, page.complaints = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        return page

    yield open_window
    for context in contexts:
        context.close()


def draw_all(page):
    """Come by every figure, as figures are drawn when they come into view."""
    for place in page.locator("[data-figure]").all():
        place.scroll_into_view_if_needed()
        place.locator("svg.main-svg").first.wait_for()


def shoot(page, name):
    """Keep a picture of the whole page, where that was asked for."""
    if not SHOTS:
        return
    draw_all(page)
    page.evaluate("scrollTo(0, 0)")
    Path(SHOTS).mkdir(parents=True, exist_ok=True)
    page.screenshot(path=Path(SHOTS) / f"{name}-{page.viewport_size['width']}.png", full_page=True)


def tab_to(page, selector):
    """Reach an element with the Tab key alone."""
    for _ in range(200):
        if page.evaluate(f"document.activeElement.matches({selector!r})"):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"the keyboard does not reach {selector}")


def actions(site):
    return [(event.action, event.actor, event.reason) for event in site.registry.events(STUDY)]


def deployed(site):
    return site.registry.deployments(STUDY)[0].decision


def elsewhere(page, site):
    """What a page asked of other places than the service."""
    return [url for url in page.asked if urlsplit(url).netloc != urlsplit(site.service.address).netloc]


def test_whole_review_with_the_keyboard_alone(site, opened):
    page = opened()
    page.goto(site.link)
    assert page.url == f"{site.service.address}/", "the token has left the address"
    tab_to(page, "nav a[href='/waiting']")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Waiting for review").wait_for()
    tab_to(page, f".actions a[href='/decisions/{site.waiting.key}']")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="What was found").wait_for()
    assert page.get_by_text("95 % interval 2.70 to 2.98").first.is_visible()

    tab_to(page, "button.bad")
    page.keyboard.press("Enter")
    until(page, "document.activeElement.matches('#reason')")  # a rejection needs a reason: the browser leads there
    page.keyboard.type("measured twice, looks right")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("This is what best_loader hands out").wait_for()
    me = actions(site)[0][1]
    assert actions(site)[0] == ("approved", me, "measured twice, looks right")
    assert deployed(site).config == SECOND

    tab_to(page, "summary")
    page.keyboard.press("Enter")
    tab_to(page, "#pin-reason")
    page.keyboard.type("until the paper is out")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("It stays whatever later studies find").wait_for()
    tab_to(page, "#reason")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("Pin, or roll back").wait_for()
    tab_to(page, "summary")
    page.keyboard.press("Enter")
    tab_to(page, "#rollback-reason")
    page.keyboard.type("training stalls since Tuesday")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("not deployed").first.wait_for()
    assert deployed(site).config == FIRST
    assert actions(site)[:3] == [
        ("rolled_back", me, "training stalls since Tuesday"),
        ("unpinned", me, ""),
        ("pinned", me, "until the paper is out"),
    ]

    page.goto(f"{site.service.address}/history")
    for words in ("taken back", "until the paper is out", "measured twice, looks right", me):
        assert page.get_by_text(words).first.is_visible(), words
    tab_to(page, ".who button")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Log in").wait_for()
    page.goto(f"{site.service.address}/waiting")
    assert "/login?next=" in page.url
    assert elsewhere(page, site) == []
    assert page.complaints == []


def test_second_of_two_reviewers_is_told_and_can_look_again(site, opened):
    ada, bob = opened(), opened(PHONE)
    ada.goto(site.link)
    bob.goto(f"{site.service.address}/decisions/{site.waiting.key}")
    bob.get_by_label("Token").fill(site.bob)
    bob.get_by_role("button", name="Log in").click()
    bob.get_by_role("button", name="Reject").wait_for()
    ada.goto(f"{site.service.address}/decisions/{site.waiting.key}")
    ada.get_by_role("button", name="Approve").click()
    ada.get_by_text("This is what best_loader hands out").wait_for()
    bob.get_by_label("Reason").fill("needs more workers than we have")
    bob.get_by_role("button", name="Reject").click()
    bob.get_by_role("heading", name="Somebody else decided first").wait_for()
    assert "has approved" in bob.get_by_role("alert").inner_text()
    assert bob.get_by_text("needs more workers than we have").is_visible()
    shoot(bob, "conflict")
    bob.get_by_role("link", name="Look at the decision as it is now").click()
    bob.get_by_text("This is what best_loader hands out").wait_for()
    assert actions(site)[0][0] == "approved"


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_every_page_fits_its_screen_and_complains_of_nothing(site, opened, size):
    page = opened(size)
    page.goto(f"{site.service.address}/login")
    shoot(page, "login")
    page.goto(site.link)
    pages = {
        "studies": "/",
        "study": f"/studies/{STUDY}",
        "waiting": "/waiting",
        "decision-waiting": f"/decisions/{site.waiting.key}",
        "decision-deployed": f"/decisions/{site.deployed.key}",
        "history": "/history",
        "comparison": f"/compare?a={site.deployed.key}&b={site.waiting.key}",
        "nights": "/nights",
        "night": f"/nights/{site.registry.nights()[0].key}",
        "queue": "/queue",
        "missing": "/decisions/none",
    }
    for name, path in pages.items():
        page.goto(f"{site.service.address}{path}")
        for closed in page.locator("details.decide:not([open]) > summary").all():
            closed.click()
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"], name
        assert page.evaluate(LOW) == 0, name
        shoot(page, name)
    assert elsewhere(page, site) == []
    assert [told for told in page.complaints if "404" not in told] == []


def test_figures_of_a_decision_are_drawn_without_any_script_in_the_page(site, opened):
    page = opened()
    page.goto(site.link)
    page.goto(f"{site.service.address}/decisions/{site.waiting.key}")
    draw_all(page)
    until(page, ALL_DRAWN)
    assert page.locator("[data-figure]").count() >= 5
    assert page.complaints == []


def test_study_opens_in_optuna_dashboard_with_the_same_login(site, opened):
    page = opened()
    page.goto(site.link)
    page.goto(f"{site.service.address}/studies/{STUDY}")
    page.get_by_role("link", name=f"{STUDY} in optuna-dashboard").click()
    page.wait_for_url(f"**:{site.service.dashboard_port}/dashboard/studies/*")
    page.get_by_text(STUDY).first.wait_for()
    shoot(page, "optuna-dashboard")


def test_link_of_another_site_finds_the_login_that_is_there(site, opened, tmp_path):
    page = opened()
    page.goto(site.link)
    target = f"{site.service.address}/decisions/{site.waiting.key}"
    mail = tmp_path / "mail.html"
    mail.write_text(f'<a href="{target}">please look</a>')
    page.goto(mail.as_uri())
    page.get_by_text("please look").click()
    page.get_by_role("heading", name="What was found").wait_for()
    assert page.url == target
