"""`autotune review`, as a person at a terminal uses it."""

import json
import sys

import pytest
from registry_values import decision

from autotune.cli import main
from autotune.registry import open_registry
from autotune.spec import LoaderConfig


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A registry with one deployed decision and another one that waits."""
    monkeypatch.delenv("AUTOTUNE_STORAGE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "home"
    with open_registry(folder) as registry:
        registry.save_decision(decided(1, 1))
        registry.save_decision(decided(2, 2), promotion="review")
        registry.save_decision(decision(study="other", minute=3))
    return folder


def decided(workers, minute):
    key = f"{workers:032x}"
    return decision(key=key, config=LoaderConfig(num_workers=workers).canonical(has_accelerator=False), minute=minute)


@pytest.fixture
def review(home, monkeypatch, capsys):
    def run(*words, code=0):
        monkeypatch.setattr(sys, "argv", ["autotune", "review", *words, "--home", str(home)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert ended.value.code == code, told.err
        return told.err if code else told.out

    return run


def deployed(home):
    with open_registry(home) as registry:
        return [one.config.num_workers for one in registry.deployed_decisions("s")]


def test_list_shows_what_waits_what_is_deployed_and_the_history(review):
    shown = review("list")
    assert "waits since 2026-01-01 00:02 UTC, as the study's promotion is review" in shown
    assert "autotune review approve 00000000" in shown
    assert "other" in shown
    document = json.loads(review("list", "--study", "s", "--json"))
    assert [one["key"] for one in document["waiting"]] == [decided(2, 2).key]
    assert document["waiting"][0]["deployment"]["deployed"]["config"]["num_workers"] == 1
    assert [one["action"] for one in document["events"]] == ["waiting", "deployed"]
    assert "no decision waits" in review("list", "--study", "other", "--history", "0")


def seen(home):
    """The version that a person sees."""
    with open_registry(home) as registry:
        return str(next(one.version for one in registry.deployments() if one.study == "s"))


FIRST, SECOND = decided(1, 1).key, decided(2, 2).key


def test_the_whole_way_from_waiting_to_rolled_back(review, home):
    event = json.loads(review("approve", SECOND, "--by", "ada", "--json"))
    assert (event["action"], event["actor"]) == ("approved", "ada")
    assert deployed(home) == [2]
    assert "pinned by ada: a paper" in review("pin", SECOND, "--by", "ada", "--reason", "a paper")
    assert "unpin it first" in review("rollback", SECOND, "--reason", "slow", code=1)
    review("unpin", "s", "--version", seen(home))
    assert "00000000 is served" in review("rollback", SECOND, "--reason", "slow")
    assert deployed(home) == [1]
    last = review("rollback", "s", "--version", seen(home), "--to", "default", "--reason", "slow too")
    assert "the PyTorch default is served" in last
    assert deployed(home) == []


def test_the_default_is_pinned_by_the_key_or_the_study_that_list_shows(review, home):
    review("rollback", FIRST, "--to", "default", "--reason", "stalls")  # SECOND waits still
    shown = json.loads(review("list", "--study", "s", "--json"))["deployments"]
    assert [one["stands_for_default"] for one in shown] == [FIRST]
    told = review("pin", "s", "--version", seen(home), "--by", "ada", "--reason", "a paper")
    assert "pinned by ada: a paper" in told
    assert "what study 's' deploys is pinned by ada" in " ".join(review("approve", SECOND, code=1).split())
    review("unpin", FIRST)
    assert "approved by" in review("approve", SECOND)


def test_rejecting_needs_a_reason_and_keeps_what_is_deployed(review, home):
    assert "needs a reason" in review("reject", SECOND, code=2)
    assert "rejected by ada: too many" in review("reject", SECOND, "--by", "ada", "--reason", "too many")
    assert deployed(home) == [1]


def test_list_shows_the_versions_that_commands_take(review, home):
    assert f"autotune review approve 00000000 --version {seen(home)}" in review("list")
    words = ("approve", "s", "--version", seen(home))
    assert "approved by" in review(*words)
    assert "nothing was changed" in review(*words, code=1)


@pytest.mark.parametrize(
    "words",
    [
        ("approve", SECOND),
        ("approve", SECOND, "--version", "2"),
        ("reject", SECOND, "--reason", "r"),
        ("approve", "s", "--version", "2"),
        ("pin", FIRST, "--reason", "r"),
        ("rollback", "s", "--version", "2", "--reason", "r"),
    ],
)
def test_who_was_faster_is_told_with_what_and_when(review, home, words):
    before = seen(home)
    words = [before if word == "2" else word for word in words]
    event = json.loads(review("approve", SECOND, "--by", "ada", "--reason", "it is faster", "--json"))
    told = " ".join(review(*words, "--by", "bob", code=1).split())
    at = event["at"][:19].replace("T", " ")
    assert f"ada has approved {SECOND} at {at} UTC (it is faster); nothing was changed" in told
    assert deployed(home) == [2]


@pytest.mark.parametrize("command", ["approve", "reject", "pin", "unpin", "rollback"])
def test_name_of_a_study_needs_the_version_that_was_seen(review, home, command):
    assert "got 's' alone; give --version too" in review(command, "s", "--reason", "r", code=2)
    assert deployed(home) == [1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("approve", "nobody"), "must mean one decision that waits, got 0; there are: 00000000 (s)"),
        (("approve", ""), "got 0"),
        (("pin", "zz", "--reason", "r"), "must mean one decision that is deployed, or stands for the default, got 0"),
        (("rollback", decided(1, 1).key, "--to", "zz", "--reason", "r"), "must mean one decision of this study, got 0"),
        (("approve", decided(2, 2).key, "--by", ""), "who takes it"),
    ],
)
def test_a_word_that_means_nothing_is_refused_with_what_there_is(review, words, told):
    assert told in review(*words, code=2)


def test_by_is_the_login_name_where_it_is_left_out(review, monkeypatch):
    monkeypatch.setenv("LOGNAME", "grace")
    assert "approved by grace" in review("approve", SECOND)


def test_user_without_a_name_says_who_decides(review, monkeypatch, home):
    def nobody():
        raise KeyError("getpwuid(): uid not found: 4242")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert "no login name; give --by" in review("approve", SECOND, code=2)
    assert deployed(home) == [1]
    assert "approved by ada" in review("approve", SECOND, "--by", "ada")


@pytest.mark.parametrize("words", [(), ("--by", "autotune")])
def test_nobody_decides_under_the_name_of_what_no_person_decided(review, monkeypatch, home, words):
    monkeypatch.setenv("LOGNAME", "autotune")  # as the user of a server may be called
    assert "the name of a person" in review("reject", SECOND, "--reason", "r", *words, code=2)
    assert json.loads(review("list", "--json"))["waiting"]
    assert "rejected by ada" in review("reject", SECOND, "--reason", "r", "--by", "ada")


def test_list_of_a_study_that_is_none_names_those_that_are(review):
    assert "got 'forest'; it has these: other, s" in review("list", "--study", "forest", code=2)
