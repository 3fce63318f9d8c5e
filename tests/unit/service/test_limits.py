"""Hosts and rates: what a request must pass before anything is read of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.errors import SpecError
from autotune.service.limits import RateLimits, host_of, parse_rate
from autotune.service.settings import Settings


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("localhost:8642", "localhost"),
        ("LOCALHOST", "localhost"),
        ("[::1]:8642", "[::1]"),
        ("[::1]", "[::1]"),
        ("evil.example:80", "evil.example"),
        ("localhost:", "localhost:"),
        ("localhost:x", "localhost:x"),
        ("evil.example#localhost", "evil.example#localhost"),
    ],
)
def test_host_is_the_name_without_its_port(header, host):
    assert host_of(header) == host


@given(st.text(max_size=50), st.integers(0, 99999))
def test_port_changes_no_host(name, port):
    assert host_of(f"{name.strip()}:{port}") == name.strip().lower()


def test_requests_of_each_are_counted_by_themselves():
    rates, limit = RateLimits(), parse_rate("2/hour")
    assert [rates.wait_s(limit, "token", "a") for _ in range(2)] == [None, None]
    assert 1 <= rates.wait_s(limit, "token", "a") <= 3600
    assert rates.wait_s(limit, "token", "b") is None
    assert rates.wait_s(limit, "failed", "a") is None


@pytest.mark.parametrize("text", ["", "many", "5", "-1/minute", "5/eon"])
def test_rate_that_makes_no_sense_is_refused(text):
    with pytest.raises(SpecError, match="rate"):
        parse_rate(text)


def test_study_files_are_those_of_the_folder_by_name_without_ending(tmp_path):
    (tmp_path / "one.yaml").write_text("")
    (tmp_path / "two.txt").write_text("")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path.parent / "outside.yaml").write_text("")
    assert dict(Settings(studies=tmp_path).study_files()) == {"one": tmp_path / "one.yaml"}
    assert Settings().study_files() == {}
