"""Which archives a night removes."""

import gc
from datetime import timedelta

import pytest
from data_sets import FileDataset, write_files
from registry_values import START, decision, facts

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
