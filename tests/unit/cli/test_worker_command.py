"""`autotune worker` and `autotune tune --shared` as far as they get without other machines."""

import sys

import pytest

from autotune.cli import main

STUDY = "name: {name}\ndataset: my:make\nbudget: 5s\n"


def code_of(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["autotune", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.fixture
def studies(tmp_path, monkeypatch):
    monkeypatch.delenv("AUTOTUNE_STORAGE", raising=False)
    monkeypatch.setenv("COLUMNS", "300")
    for file, name in (("one", "one"), ("other_file", "two")):
        (tmp_path / f"{file}.yaml").write_text(STUDY.format(name=name))
    return tmp_path


def test_a_worker_without_a_study_file_of_that_name_is_told_which_there_are(studies, monkeypatch, capsys):
    assert code_of(monkeypatch, "worker", "--study", "three", "--studies", studies) == 2
    assert "only one, two; name another folder with --studies" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_study_is_found_by_its_name_whatever_its_file_is_called(studies, monkeypatch, capsys, name):
    assert code_of(monkeypatch, "worker", "--study", name, "--studies", studies, "--home", studies / "home") == 2
    assert "shared through a PostgreSQL database" in capsys.readouterr().err


def test_a_study_that_is_shared_needs_a_database_that_others_reach(studies, monkeypatch, capsys):
    assert code_of(monkeypatch, "tune", studies / "one.yaml", "--shared", "--home", studies / "home") == 2
    shown = capsys.readouterr()
    assert "AUTOTUNE_STORAGE=postgresql://user@host/database" in shown.err
    assert shown.out == ""


def test_only_to_drive_makes_no_sense_where_nobody_else_measures(studies, monkeypatch, capsys):
    assert code_of(monkeypatch, "tune", studies / "one.yaml", "--no-measure", "--home", studies / "home") == 2
    assert "--no-measure belongs to --shared" in capsys.readouterr().err
