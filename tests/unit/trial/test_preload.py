"""What the trial server imports for its trials, and what it must not."""

import subprocess
import sys
import textwrap

import pytest
from trial_requests import trial_request

from autotune.spec import Consumer
from autotune.trial import LocalRunner
from autotune.trial.preload import ON_DEMAND


def test_what_one_trial_imported_the_next_ones_find_imported(tmp_path):
    noted = tmp_path / "noted"
    consumer = Consumer(
        kind="step", step="trial_datasets:make_counting_step", step_arguments={"path": str(tmp_path / "batches")}
    )
    arguments = {"path": str(noted), "names": ["torch._dynamo", "monai.transforms"]}
    request = trial_request(tmp_path, "NotesModules", arguments, workload={"consumer": consumer})
    with LocalRunner() as runner:
        failures = [runner.run(request).failure for _ in range(2)]
    assert failures == [None, None]
    assert noted.read_text().split("\n") == ["", "torch._dynamo", ""]


def test_a_fresh_interpreter_imports_what_it_needs_itself(tmp_path):
    noted = tmp_path / "noted"
    request = trial_request(tmp_path, "NotesModules", {"path": str(noted), "names": ["torch._dynamo"]})
    with LocalRunner(start="fresh") as runner:
        assert [runner.run(request).failure for _ in range(2)] == [None, None]
    assert noted.read_text() == "\n\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_DEMAND)
def test_a_preloaded_library_holds_nothing_that_a_fork_would_share(name):
    """No descriptor stays open, no raster driver is registered, and a fork can compute in parallel."""
    pytest.importorskip(name)
    script = f"""
        import os, sys
        from autotune.trial.preload import ALWAYS, preload
        import torch
        preload(ALWAYS)
        before = os.listdir("/proc/self/fd")
        preload([{name!r}])
        assert {name!r} in sys.modules
        assert os.listdir("/proc/self/fd") == before, os.listdir("/proc/self/fd")
        assert not {{"rasterio._base", "osgeo.gdal", "tensorflow"}} & set(sys.modules)
        pid = os.fork()
        if not pid:
            total = torch.nn.functional.conv2d(torch.ones(8, 4, 64, 64), torch.ones(4, 4, 3, 3)).sum()
            os._exit(0 if float(total) == 8 * 4 * 62 * 62 * 36 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)


def test_a_library_that_cannot_be_imported_is_left_to_the_trial(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with LocalRunner() as runner:
        runner._preload = ("no_such_library",)
        assert runner.run(trial_request(tmp_path)).failure is None
