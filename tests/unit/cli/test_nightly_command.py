"""`autotune nightly` as far as it gets without a night."""

import sys

import pytest

from autotune.cli import main


@pytest.mark.parametrize(
    ("report", "told"),
    [("folder", "got the folder"), ("file/report.html", "can be made"), ("file/deeper/report.html", "can be made")],
)
def test_place_where_no_report_can_lie_is_refused_before_the_night(tmp_path, monkeypatch, capsys, report, told):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "one.yaml").write_text("name: one\n")
    words = [str(tmp_path / "one.yaml"), "--report", str(tmp_path / report), "--home", str(tmp_path / "home")]
    monkeypatch.setattr(sys, "argv", ["autotune", "nightly", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.out == ""
    assert not (tmp_path / "home" / "registry.db").exists(), "there was no night"
