"""`autotune doctor --drill`."""

import json
import sys

import pytest

from autotune.cli import main
from autotune.drill import Drill, table
from autotune.study.lock import machine_lock


@pytest.fixture
def drilled(monkeypatch, capsys, tmp_path):
    """Run the command; give exit code, standard output and standard error."""
    monkeypatch.setenv("AUTOTUNE_LOCK", str(tmp_path / "lock"))
    monkeypatch.setenv("COLUMNS", "250")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["autotune", "doctor", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


def test_chosen_faults_are_drilled_and_shown(drilled):
    code, out, _ = drilled("--drill", "--row", "28", "--row", "27")
    assert code == 0
    assert "hostile study file" in out
    assert "pickle in data" in out
    assert "2 of 2 promises held." in out


def test_json_is_one_document(drilled):
    code, out, _ = drilled("--drill", "--row", "28", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["held"] is True
    (found,) = document["drills"]
    assert set(found) == {"row", "fault", "cause", "promise", "state", "happened", "seconds"}
    assert (found["row"], found["state"]) == (28, "held")


def test_a_broken_promise_ends_with_1(drilled, monkeypatch):
    drills = (Drill(row=3, cause="[b]nothing", run=lambda folder: 1 / 0), *table.DRILLS)
    monkeypatch.setattr(table, "DRILLS", drills)
    code, out, _ = drilled("--drill", "--row", "3", "--row", "28")
    assert code == 1
    assert "ZeroDivisionError" in out
    assert "[b]nothing" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--drill", "--row", "4"], "got --row 4"),
        (["--row", "28"], "add --drill"),
        (["--drill", "--home", "here"], "got --home here"),
    ],
)
def test_wrong_use_ends_with_2(drilled, words, told):
    code, _, err = drilled(*words)
    assert code == 2
    assert told in err


def test_nothing_is_drilled_while_a_tuning_job_measures(drilled, tmp_path):
    with machine_lock("study forest_gaps", path=tmp_path / "lock"):
        code, _, err = drilled("--drill", "--row", "28")
    assert code == 4
    assert "study forest_gaps" in err
