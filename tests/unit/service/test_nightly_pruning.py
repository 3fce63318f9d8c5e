"""What a night removes as too old."""

import gc
import os
from datetime import UTC, datetime, timedelta

import pytest
from data_sets import FileDataset, write_files
from registry_values import START, decision, facts
from reviewed_studies import make_optuna_study

from autotune.compose import Places
from autotune.data.apply import prepare
from autotune.data.archives.listing import list_archives
from autotune.registry import open_registry
from autotune.service.nightly.pruning import prune
from autotune.spec import LoaderConfig

NPY = LoaderConfig(archive="npy", stored="decoded")


@pytest.fixture
def at(tmp_path):
    return Places(home=tmp_path / "home", tracking_uri="", lock=tmp_path / "lock")


@pytest.fixture
def registry(at):
    with open_registry(at.home) as opened:
        yield opened


def built(at):
    return [entry.name for entry in list_archives(at.archive_root)]


@pytest.fixture
def fingerprint(at, tmp_path):
    """Of an archive that was built and is open no more."""
    prepare(FileDataset(write_files(tmp_path / "files")), NPY, archive_root=at.archive_root)
    gc.collect()
    (name,) = built(at)
    return name.partition("/")[0]


def pruned(registry, at, **more):
    prune(registry, at=at, keep_days=30, now=START + timedelta(days=1), **more)
    return built(at) == []


def test_the_archive_of_a_dead_group_goes_once_the_files_have_changed(registry, at, fingerprint):
    registry.save_decision(decision(config=NPY, dataset=facts(length=7), fingerprint=fingerprint))
    registry.save_decision(decision(config=NPY, fingerprint="new", minute=1))
    assert not pruned(registry, at)
    assert pruned(registry, at, stale={("s", fingerprint)})


def test_an_archive_that_another_study_deploys_stays_whatever_changed_for_the_first(registry, at, fingerprint):
    registry.save_decision(decision(config=NPY, fingerprint=fingerprint))
    registry.save_decision(decision(study="t", config=NPY, fingerprint=fingerprint))
    assert not pruned(registry, at, stale={("s", fingerprint)})


def test_reports_of_old_nights_go_and_what_else_lies_beside_them_stays(registry, at):
    folder = at.home / "reports"
    folder.mkdir()
    for name, days in (("nightly-old.html", 31), ("nightly-new.html", 29), ("mine.html", 400)):
        (folder / name).write_text("")
        written = (START - timedelta(days=days)).timestamp()
        os.utime(folder / name, (written, written))
    found = prune(registry, at=at, keep_days=30, now=START)
    assert found.reports == 1
    assert sorted(page.name for page in folder.iterdir()) == ["mine.html", "nightly-new.html"]


@pytest.mark.parametrize("days", [29, 31])
def test_searches_that_others_have_superseded_go_once_they_are_old(registry, at, days):
    registry.save_decision(decision())
    for name in ("s", "s 2"):
        make_optuna_study(at.home, name, of="s")
    found = prune(registry, at=at, keep_days=30, now=datetime.now(UTC) + timedelta(days=days))
    assert found.searches == (days > 30)
    assert not (at.home / "reports").exists()


def test_a_night_goes_on_where_the_searches_cannot_be_read(registry, at, caplog):
    registry.save_decision(decision())
    (at.home / "optuna.db").write_bytes(b"no database" * 1000)
    assert prune(registry, at=at, keep_days=30, now=START).searches == 0
    assert "was not pruned" in caplog.text
