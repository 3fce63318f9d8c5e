"""What becomes of studies that somebody asked for, in nights that run no search for them."""

from datetime import UTC, datetime, timedelta

import pytest

from autotune.compose import places
from autotune.registry import open_registry
from autotune.service.nightly import NightOrder, run_night, study_files
from autotune.service.pages.history import shown_entries
from autotune.spec import QueuedStudy

STUDY = """\
name: {name}
dataset: {{factory: "trial_datasets:Plain", arguments: {{count: 64}}}}
device: cpu
budget: {{time: 8s, trials: 4}}
space: {{batch_size: 16, num_workers: [0, 1], prefetch_factor: 2, archive: files}}
"""


class Told:
    """Keeps what becomes of studies, and does something when one is begun."""

    def __init__(self, at_look=lambda: None):
        self.at_look, self.begun, self.done = at_look, [], []

    def on_study(self, name, what):
        self.begun.append((name, what))
        if what == "look":
            self.at_look()

    def on_run(self, record):
        pytest.fail(f"nothing is measured here, but {record}")

    def on_done(self, night):
        self.done.append(night)

    def searching(self):
        pytest.fail("nothing is searched here")


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_LOCK", str(tmp_path / "lock"))
    (tmp_path / "studies").mkdir()
    return places(tmp_path / "home")


def _night(at, told):
    files = study_files([at.home.parent / "studies"])
    return run_night(NightOrder(files=files, budget_s=600, at=at, machine="here"), told)


def _asked(at, study):
    with open_registry(at.home) as registry:
        return registry.queue_study(QueuedStudy(study=study, requested_by="ada", requested_at=datetime.now(UTC)))


def _entry(at, entry):
    with open_registry(at.home) as registry:
        return registry.queued_study(entry.key)


def test_study_that_was_asked_for_and_cannot_be_run_is_not_asked_for_any_more(at):
    (at.home.parent / "studies" / "broken.yaml").write_text("name: broken\nbudget: 5s\n")
    entry = _asked(at, "broken")
    assert _night(at, Told()).exit_code == 1
    ended = _entry(at, entry)
    assert (ended.state, ended.machine) == ("failed", "here")
    assert "dataset" in ended.message
    assert _asked(at, "broken").key != entry.key


def test_study_that_no_file_of_the_night_has_waits_for_another_nights_and_is_told(at, caplog):
    (at.home.parent / "studies" / "broken.yaml").write_text("name: broken\nbudget: 5s\n")
    entry = _asked(at, "elsewhere")
    _night(at, Told())
    assert _entry(at, entry).state == "queued"
    assert "none of the files of this night: elsewhere" in caplog.text


def test_study_that_is_cancelled_before_its_search_is_not_searched(at):
    (at.home.parent / "studies" / "one.yaml").write_text(STUDY.format(name="one"))
    entry = _asked(at, "one")

    def cancel():
        with open_registry(at.home) as registry:
            registry.cancel_queued_study(entry.key, by="bob", at=datetime.now(UTC))

    told = Told(cancel)
    report = _night(at, told)
    assert told.begun == [("one", "look")]
    (night,) = report.studies
    assert night.why == "ada asked for it"
    assert "has cancelled" in night.told[0]
    assert _entry(at, entry).message == "cancelled by bob"


def test_what_waits_and_what_ended_last_is_seen_however_much_was_asked_for(at):
    with open_registry(at.home) as registry:
        for number in range(6):
            entry = registry.queue_study(QueuedStudy(study=f"s{number}", requested_by="ada", requested_at=day(number)))
            if number < 4:
                registry.end_queued_study(entry.key, "done", message="", at=day(20 - number))
        registry.take_queued_study(entry.key, machine="here", at=day(9))
        assert [one.study for one in shown_entries(registry, ended=2)] == ["s5", "s4", "s0", "s1"]


def day(number):
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
