"""When a trial began, and what a trial process says that cannot begin."""

from datetime import UTC, datetime, timedelta

import pytest
from trial_requests import trial_request

from autotune.trial import LocalRunner


def test_a_record_says_when_the_trial_began(tmp_path):
    with LocalRunner() as runner:
        before = datetime.now(UTC)
        found = runner.run(trial_request(tmp_path))
        after = datetime.now(UTC)
    assert before <= found.started_at
    assert found.started_at + timedelta(seconds=found.wall_s) <= after + timedelta(milliseconds=50)


@pytest.mark.parametrize("start", ["fork", "fresh"])
def test_a_trial_process_that_cannot_begin_says_why(tmp_path, monkeypatch, start):
    folder = tmp_path / "gone"
    with LocalRunner(start=start) as runner:
        runner.run(trial_request(tmp_path))
        folder.mkdir()
        monkeypatch.chdir(folder)
        folder.rename(tmp_path / "moved")
        monkeypatch.setattr("pathlib.Path.cwd", classmethod(lambda _cls: folder))
        failure = runner.run(trial_request(tmp_path)).failure
    assert failure.kind == "crashed"
    assert "FileNotFoundError" in failure.message
