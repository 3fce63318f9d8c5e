"""Which Optuna studies are removed once a changed space or dataset has led to another one."""

import json
from datetime import UTC, datetime, timedelta

import optuna
import pytest

from autotune.study.optuna_store import open_storage
from autotune.study.superseded import remove_superseded

DAY = timedelta(days=1)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'optuna.db'}"


def make(url, study_name, *, of="s", machine="4 CPUs", trials=1):
    storage = open_storage(url)
    study = optuna.create_study(storage=storage, study_name=study_name)
    if of is not None:
        study.set_user_attr("autotune:name", of)
        study.set_user_attr("autotune:identity", json.dumps({"machine": machine, "dimensions": study_name}))
    for _ in range(trials):
        study.add_trial(optuna.trial.create_trial(value=1.0))
    storage.engine.dispose()


def names(url):
    storage = open_storage(url)
    found = {one.study_name for one in optuna.study.get_all_study_summaries(storage)}
    storage.engine.dispose()
    return found


def test_only_what_was_superseded_long_ago_is_removed(url):
    make(url, "s")
    make(url, "s 2")
    make(url, "s 3", trials=0)  # just begun
    make(url, "s 4", machine="8 CPUs")
    make(url, "other", of="other")
    make(url, "foreign", of=None)
    all_of_them, now = names(url), datetime.now(UTC)
    assert remove_superseded(url, ["s", "other"], before=now - DAY) == 0
    assert names(url) == all_of_them
    assert remove_superseded(url, ["s", "other"], before=now + DAY) == 1
    assert names(url) == all_of_them - {"s"}


def test_a_study_that_was_gone_back_to_stays(url):
    make(url, "s")
    make(url, "s 2")
    storage = open_storage(url)
    optuna.load_study(study_name="s", storage=storage).add_trial(optuna.trial.create_trial(value=1.0))
    storage.engine.dispose()
    assert remove_superseded(url, ["s"], before=datetime.now(UTC) + DAY) == 1
    assert names(url) == {"s"}
