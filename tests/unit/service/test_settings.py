"""What an operator decides about the service."""

from autotune.service.nightly import study_files
from autotune.service.settings import Settings


def test_what_may_be_queued_is_what_a_night_would_run(tmp_path):
    for name in ("a.yaml", "b.yml", "notes.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "folder.yaml").mkdir()
    assert Settings(studies=tmp_path).study_files() == study_files([tmp_path])
    assert sorted(study_files([tmp_path])) == ["a", "b"]
    assert Settings(studies=tmp_path / "gone").study_files() == Settings().study_files() == {}
