"""Real files in and out of the page cache."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from autotune.measure.pagecache import evict, prepare_page_cache, read_once, resident_share, total_bytes, verify

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="residency is known on Linux only")


@pytest.fixture
def files(tmp_path):
    """Give files on a disk, since memory file systems cannot be evicted."""
    paths = []
    for number in range(4):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(os.urandom(300_000))
        paths.append(str(path))
    evict(paths)
    if resident_share(paths):
        pytest.skip("this file system cannot drop pages")
    return paths


def test_cold_files_are_verified_as_cold_even_when_just_written(files):
    with Path(files[0]).open("ab") as file:
        file.write(b"dirty" * 10_000)
    state, share = prepare_page_cache(files, "cold")
    assert state == "cold"
    assert share < 0.01


def test_warm_files_are_verified_as_warm(files):
    state, share = prepare_page_cache(files, "warm")
    assert state == "warm"
    assert share >= 0.99


def test_half_read_files_are_neither(files):
    read_once(files[:2])
    assert verify(files, "warm")[0] == "unknown"
    assert verify(files, "cold")[0] == "unknown"
    assert 0.4 < resident_share(files) < 0.6


def test_evicted_files_become_cold_again(files):
    read_once(files)
    evict(files)
    assert verify(files, "cold")[0] == "cold"


def test_no_files_are_unknown():
    assert prepare_page_cache([], "warm") == ("unknown", None)


def test_a_missing_file_is_unknown(files, tmp_path):
    assert prepare_page_cache([*files, str(tmp_path / "missing")], "warm")[0] == "unknown"


def test_empty_files_are_unknown(tmp_path):
    (tmp_path / "empty").touch()
    assert prepare_page_cache([str(tmp_path / "empty")], "warm") == ("unknown", None)


def test_sizes_are_added_up(files, tmp_path):
    assert total_bytes([*files, str(tmp_path / "missing")]) == 4 * 300_000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_files_of_others_are_unknown(files):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = shutil.copy(files[0], folder)
        Path(path).chmod(0o644)
        assert prepare_page_cache([path], "warm")[0] == "warm"
        pid = os.fork()
        if not pid:  # somebody else, who can read the file and no more
            os.seteuid(65534)
            Path(path).read_bytes()
            os._exit(prepare_page_cache([path], "warm") != ("unknown", None))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
