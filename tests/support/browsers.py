"""Where Chromium is: on the path, or where `AUTOTUNE_TEST_CHROMIUM` says."""

import os
import shutil

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
