"""A real browser: Chromium on the path, or where `AUTOTUNE_TEST_CHROMIUM` says."""

import contextlib
import os
import shutil

import pytest

BROWSER = next(
    filter(
        None,
        (
            os.environ.get("AUTOTUNE_TEST_CHROMIUM"),
            *map(shutil.which, ("chromium", "chromium-browser", "google-chrome")),
        ),
    ),
    None,
)
"""Path of Chromium; None where it is not installed."""
MISSING = "Chromium is not installed: apt-get install chromium"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1200, "height": 900}


@contextlib.contextmanager
def started():
    """Start it, and end it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


def until(page, expression):
    """Wait for an expression; playwright's own way evaluates text within the page, which its policy refuses."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"never came true: {expression}")
