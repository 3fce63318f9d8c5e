"""The four usage examples of general loading, run on real data."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_examples_of_general_loading_run_on_real_data(real_data):
    finished = subprocess.run(
        [sys.executable, ROOT / "studies" / "examples" / "general_loading.py", "--data", real_data],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=ROOT,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    for told in (
        "320 images of classes ('cat', 'dog')",
        "a batch of 16 texts",
        "360 rows by index",
        "360 rows streamed",
        "Batches per second:",
        "Average memory usage:",
    ):
        assert told in finished.stdout
