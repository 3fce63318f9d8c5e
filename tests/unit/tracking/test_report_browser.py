"""The report in a real browser: it draws without network, fits a phone, and prints whole."""

from datetime import UTC, datetime

import pytest
from browsers import BROWSER, MISSING, PHONE, started, until
from registry_values import decision, record

from autotune.registry import open_registry
from autotune.spec import Bottleneck
from autotune.tracking.report import gather, render_report

pytestmark = pytest.mark.skipif(BROWSER is None, reason=MISSING)
pytest.importorskip("playwright")

ALL_FIGURES = "document.querySelectorAll('[data-figure]').length"


@pytest.fixture(scope="module")
def browser():
    with started() as running:
        yield running


@pytest.fixture
def address(tmp_path):
    decided = decision(minute=60)
    stages = Bottleneck(config=decided.config.label(), stage="read", limit="workers", stages={"read": 3.0})
    with open_registry(tmp_path) as registry:
        for number in range(6):
            registry.save_record(record(f"s{number}", rate=100.0 + number, minute=number))
            rival = decided.config if number % 2 else decided.default
            registry.save_record(record(f"c{number}", phase="confirm", config=rival, minute=10 + number))
        registry.save_decision(decided.replace(bottlenecks=(stages,)))
        page = render_report([gather(registry, "s")], made_at=datetime.now(UTC))
    file = tmp_path / "report.html"
    file.write_text(page)
    return file.as_uri()


@pytest.fixture
def opened(browser, address):
    """A page on a phone, with what it asked for and what it complained of."""
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    page = context.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    yield page, asked, complaints
    context.close()


def test_every_figure_is_drawn_when_it_comes_into_view_and_nothing_is_asked_of_the_network(opened, address):
    page, asked, complaints = opened
    for place in page.locator("[data-figure]").all():
        place.scroll_into_view_if_needed()
        place.locator("svg.main-svg").first.wait_for()
    assert page.evaluate(ALL_FIGURES) >= 6
    assert asked == [address]
    assert complaints == [], "neither errors nor what the page's own policy refused"


def test_page_fits_a_phone_and_turns_with_it(opened):
    page, _, _ = opened
    page.locator("[data-figure]").first.scroll_into_view_if_needed()
    page.locator("svg.main-svg").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    page.set_viewport_size({"width": 844, "height": 390})
    until(page, "document.querySelector('svg.main-svg').clientWidth > 700")
    assert page.evaluate("document.documentElement.scrollWidth") == 844


def test_lists_open_and_everything_is_reached_by_keyboard(opened):
    page, _, _ = opened
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("table.trials tbody tr").first.is_visible()


def test_print_has_every_figure_and_the_closed_lists(opened):
    page, _, _ = opened
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    until(page, f"document.querySelectorAll('.plot.js-plotly-plot').length === {ALL_FIGURES}")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("Math.max(...[...document.querySelectorAll('svg.main-svg')].map(it => it.clientWidth))") == 680
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert page.pdf().startswith(b"%PDF")
