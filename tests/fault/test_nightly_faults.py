"""Nights that meet, that are killed, and that find a planted loss: real runs of the command."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from waiting import until

from autotune.errors import AutotuneError
from autotune.registry import open_existing, open_registry
from autotune.spec import LoaderConfig, QueuedStudy
from autotune.spec.record import new_key

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(900)]

SUPPORT = Path(__file__).resolve().parent.parent / "support"
STUDY = """\
name: {name}
dataset: {{factory: "trial_datasets:Plain", arguments: {{count: 256, work_ms: 1.0}}}}
device: cpu
budget: {{time: 8s, trials: 4}}
space: {{batch_size: 16, num_workers: [0, 1], prefetch_factor: 2, archive: files}}
time_cap_s: 0.5
confirm_time_cap_s: 0.3
promotion: {promotion}
"""
WITHIN_S = 400
SLOW = LoaderConfig(batch_size=16, num_workers=1, prefetch_factor=2).canonical(has_accelerator=False)


class Place:
    """A folder with studies, a home and a lock of its own."""

    def __init__(self, folder):
        self.folder, self.home = folder, folder / "home"
        (folder / "studies").mkdir()
        (folder / "tmp").mkdir()
        paths = [str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
        kept = {
            name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "AUTOTUNE_URL")
        }
        self.environ = {
            **kept,
            "PYTHONPATH": os.pathsep.join(paths),
            "AUTOTUNE_HOME": str(self.home),
            "AUTOTUNE_LOCK": str(folder / "tmp" / "lock"),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }

    def study(self, name, promotion="automatic"):
        (self.folder / "studies" / f"{name}.yaml").write_text(STUDY.format(name=name, promotion=promotion))

    def command(self, *words):
        run = [sys.executable, "-c", "from autotune.cli import main; main()", "nightly", str(self.folder / "studies")]
        return [*run, *map(str, words)]

    def night(self, *words, code=0):
        run = subprocess.run(
            self.command(*words, "--json"), env=self.environ, capture_output=True, text=True, timeout=800, check=False
        )
        assert run.returncode == code, run.stderr[-3000:]
        return json.loads(run.stdout)

    def start(self, *words):
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(self.command(*words), env=self.environ, **pipes)

    def records(self, study, count):
        """Give the records once there are so many; the registry may not even be there yet."""
        with suppress(AutotuneError), open_existing(self.home) as registry:
            found = registry.records(study)
            return found if len(found) >= count else []
        return []


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.fault(13)
def test_a_second_night_exits_4_naming_the_holder_even_where_it_does_not_see_the_lock(place):
    place.study("one")
    first = place.start("--budget", "10m")
    try:
        until(lambda: place.records("one", 1), "a record", within_s=WITHIN_S)
        second = subprocess.run(
            place.command("--budget", "10m"), env=place.environ, capture_output=True, text=True, check=False
        )
        assert second.returncode == 4
        assert f"process {first.pid} (nightly run of 1 studies" in second.stderr
        elsewhere = {**place.environ, "AUTOTUNE_LOCK": str(place.folder / "tmp" / "another-lock")}
        third = subprocess.run(
            place.command("--budget", "10m"), env=elsewhere, capture_output=True, text=True, check=False
        )
        assert third.returncode == 4
        assert f"process {first.pid} (nightly run of 1 studies" in third.stderr
        assert second.stdout == third.stdout == ""
    finally:
        first.kill()
        first.wait()


@pytest.mark.fault(4)
@pytest.mark.long
def test_a_killed_night_goes_on_where_it_was_and_leaves_nothing_behind(place):
    place.study("one")
    place.study("two")
    first = place.start("--budget", "10m")
    until(lambda: place.records("two", 2), "a record of the second study", within_s=WITHIN_S)
    processes = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(signal.SIGKILL)
    first.wait()
    _, survivors = psutil.wait_procs(processes, timeout=20)
    assert survivors == []
    with open_existing(place.home) as registry:
        (interrupted,) = registry.nights()
        kept = registry.records("two")
        decided = registry.decisions("one")
    assert interrupted.ended_at is None
    assert [one.study for one in interrupted.studies] == ["one"]
    report = place.night("--budget", "10m")
    assert report["key"] == interrupted.key
    assert [one["study"] for one in report["studies"]] == ["one", "two"]
    assert report["spent_s"] > interrupted.spent_s > 0
    with open_existing(place.home) as registry:
        assert registry.decisions("one") == decided
        assert {one.key for one in kept} <= {one.key for one in registry.records("two")}
        assert len(registry.nights()) == 1
        assert registry.leases() == []


@pytest.mark.long
def test_a_night_that_is_told_to_end_lets_the_machine_go_and_leaves_nothing_behind(place):
    place.study("one")
    first = place.start("--budget", "3m")
    try:
        until(lambda: place.records("one", 1), "a record", within_s=WITHIN_S)
        processes = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(signal.SIGTERM)
        assert first.wait(WITHIN_S) == 130
    finally:
        first.kill()
    _, survivors = psutil.wait_procs(processes, timeout=20)
    assert survivors == []
    with open_existing(place.home) as registry:
        assert registry.leases() == []
        assert registry.nights()[0].ended_at is None, "it goes on when it is started again"


def test_a_planted_loss_is_taken_back_and_the_search_finds_what_is_better(place):
    place.study("one")
    first = place.night("--budget", "10m")
    assert [(one["outcome"], one["searched"]) for one in first["studies"]] == [("promoted", True)]
    with open_registry(place.home) as registry:
        (good,) = registry.deployed_decisions("one")
        bad = good.replace(key=new_key(), config=SLOW.model_dump(), decided_at=datetime.now(UTC), why="planted")
        registry.save_decision(bad)
    second = place.night("--budget", "10m")
    (one,) = second["studies"]
    assert (one["outcome"], one["before_key"], second["exit_code"]) == ("rolled_back", bad.key, 0)
    assert "slower than what was deployed before it" in " ".join(one["told"])
    assert Path(second["report"]).stat().st_size > 0
    with open_existing(place.home) as registry:
        events = [(event.action, event.decision_key) for event in registry.events("one")]
        assert ("rolled_back", bad.key) in events
        rolled = next(event for event in registry.events("one") if event.action == "rolled_back")
        assert (rolled.after_key, rolled.actor) == (good.key, "autotune")
        assert "slower" in rolled.reason
        assert registry.deployed_decisions("one")[0].config == good.config


@pytest.mark.long
def test_a_person_who_went_back_to_the_default_is_not_overruled_and_drift_is_searched_anew(place):
    place.study("one")
    place.night("--budget", "2m")
    with open_registry(place.home) as registry:
        (good,) = registry.deployed_decisions("one")
        slow = good.replace(key=new_key(), samples_per_s=good.samples_per_s / 3, decided_at=datetime.now(UTC))
        registry.save_decision(slow)
        earlier = len(registry.records("one", phase="search"))
    (one,) = place.night("--budget", "2m")["studies"]
    assert (one["outcome"], one["searched"]) == ("kept", True)
    assert "the rate was" in " ".join(one["told"])
    with open_registry(place.home) as registry:
        assert len(registry.records("one", phase="search")) > earlier, "what was known was measured again"
        (found,) = registry.deployed_decisions("one")
        version = registry.deployments("one")[0].version
        registry.roll_back(found.key, to="default", actor="ada", reason="stalls", expected_version=version)
    (one,) = place.night("--budget", "1m")["studies"]
    assert (one["outcome"], one["searched"], one["after_key"]) == ("kept", False, None)
    assert "ada has taken back" in one["why"]


@pytest.mark.long
def test_a_pinned_loss_stays_and_a_person_is_told(place):
    place.study("one")
    place.night("--budget", "10m")
    with open_registry(place.home) as registry:
        (good,) = registry.deployed_decisions("one")
        bad = good.replace(key=new_key(), config=SLOW.model_dump(), decided_at=datetime.now(UTC), why="planted")
        registry.save_decision(bad)
        version = registry.deployments("one")[0].version
        registry.pin(bad.key, actor="ada", reason="an experiment", expected_version=version)
    (one,) = place.night("--budget", "10m")["studies"]
    assert one["outcome"] == "waiting"
    assert "a person has to decide" in " ".join(one["told"])
    with open_existing(place.home) as registry:
        assert registry.deployed_decisions("one")[0] == bad


@pytest.mark.long
def test_what_was_asked_for_goes_first_what_waits_is_told_and_a_broken_file_fails_alone(place):
    place.study("asked", promotion="review")
    place.study("other")
    (place.folder / "studies" / "broken.yaml").write_text("name: broken\nbudget: 5s\n")
    at = datetime.now(UTC)
    with open_registry(place.home) as registry:
        entry = registry.queue_study(QueuedStudy(study="asked", requested_by="ada", requested_at=at))
        killed = registry.queue_study(QueuedStudy(study="gone", requested_by="bob", requested_at=at))
        assert registry.take_queued_study(killed.key, machine="here", at=at)
    report = place.night("--budget", "10m", "--machine", "here", code=1)
    assert [one["study"] for one in report["studies"]] == ["broken", "asked", "other"]
    assert [one["outcome"] for one in report["studies"]][:2] == ["failed", "waiting"]
    assert "dataset" in report["studies"][0]["told"][0]
    with open_existing(place.home) as registry:
        ended = registry.queued_study(entry.key)
        assert (ended.state, ended.machine) == ("done", "here")
        assert ended.ended_at - at < timedelta(hours=1)
        assert registry.queued_study(killed.key).state == "queued", "its machine was killed, so it is free again"
        assert registry.deployed_decisions("asked") == []
        assert [one.decision.study for one in registry.waiting()] == ["asked"]


def test_a_dry_run_says_what_would_run_and_why_and_writes_nothing(place):
    place.study("one")
    report = place.night("--budget", "10m", "--dry-run")
    (one,) = report["studies"]
    assert (one["task"], one["why"], one["budget_s"]) == ("search", "it has never been tuned", 8.0)
    assert not (place.home / "registry.db").exists()
