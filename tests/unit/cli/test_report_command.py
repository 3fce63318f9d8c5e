"""`autotune report` on a real registry."""

import json
import sys

import pytest
from registry_values import decision, record
from report_pages import Page

from autotune.cli import main
from autotune.registry import open_registry


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    with open_registry(folder) as registry:
        registry.save_record(record("k1"))
        registry.save_decision(decision(minute=5))
        registry.save_record(record("k2", study="other"))
    return folder


def report(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["autotune", "report", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_report_is_one_file_about_the_studies_that_were_named(home, tmp_path, monkeypatch, capsys):
    target = tmp_path / "report.html"
    assert report(monkeypatch, "s", "other", "-o", target, "--home", home) == 0
    page = Page(target.read_text())
    assert page.text.startswith("autotune: s, other")
    assert capsys.readouterr().out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"home", "report.html"}


def test_json_says_what_was_written(home, tmp_path, monkeypatch, capsys):
    target = tmp_path / "report.html"
    assert report(monkeypatch, "s", "-o", target, "--home", home, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "schema_version": 1, "report": str(target), "studies": ["s"], "size_bytes": target.stat().st_size,
    }  # fmt: skip


def test_unknown_study_is_wrong_use_and_writes_nothing(home, tmp_path, monkeypatch, capsys):
    target = tmp_path / "report.html"
    assert report(monkeypatch, "gone", "-o", target, "--home", home) == 2
    assert "got 'gone'; it has these: other, s" in " ".join(capsys.readouterr().err.split())
    assert not target.exists()


def test_file_that_cannot_be_written_is_told_and_what_was_there_stays(home, tmp_path, monkeypatch, capsys):
    target = tmp_path / "folder.html"
    target.mkdir()
    (target / "kept").touch()
    assert report(monkeypatch, "s", "-o", target, "--home", home) == 2
    assert "must be a file that can be written" in " ".join(capsys.readouterr().err.split())
    assert (target / "kept").exists()
    assert report(monkeypatch, "s", "-o", tmp_path / "absent" / "report.html", "--home", home) == 2


def test_registry_that_is_not_there_is_no_success(tmp_path, monkeypatch, capsys):
    assert report(monkeypatch, "s", "-o", tmp_path / "report.html", "--home", tmp_path / "nowhere") == 1
    assert "registry" in capsys.readouterr().err
