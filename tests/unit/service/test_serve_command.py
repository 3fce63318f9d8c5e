"""What `autotune serve` makes of its options before it serves."""

import pytest

from autotune.cli.serve import _is_own, _mlflow_url, _own_token, _settings
from autotune.compose import places
from autotune.errors import SpecError


@pytest.mark.parametrize(
    ("host", "service_url", "own"),
    [
        ("127.0.0.1", None, True),
        ("localhost", None, True),
        ("::1", "http://[::1]:8642", True),
        ("127.0.0.1", "http://localhost:8642", True),
        ("127.0.0.1", "https://tuning.example.org", False),
        ("0.0.0.0", None, False),
        ("0.0.0.0", "http://localhost:8642", False),
        ("tuner", None, False),
    ],
)
def test_link_that_opens_everything_is_printed_where_this_machine_alone_reaches_the_service(host, service_url, own):
    assert _is_own(host, service_url) == own


@pytest.mark.parametrize(
    ("given", "tracking_uri", "address"),
    [
        (None, "sqlite:////home/ada/mlflow.db", None),
        (None, "http://mlflow:5000/", "http://mlflow:5000"),
        ("https://mlflow.example.org", "http://mlflow:5000", "https://mlflow.example.org"),
    ],
)
def test_mlflow_is_linked_where_it_has_an_address(given, tracking_uri, address):
    assert _mlflow_url(given, tracking_uri) == address


def test_mlflow_elsewhere_must_be_an_address():
    with pytest.raises(SpecError, match="--mlflow is an address"):
        _mlflow_url("javascript:alert(1)", "sqlite://")


def test_name_under_which_people_reach_the_service_is_answered_to_and_cookies_are_for_tls(tmp_path):
    at = places(tmp_path, environ={"AUTOTUNE_URL": "https://tuning.example.org:8443"})
    settings = _settings("127.0.0.1", ["a, b:80"], None, rates=("1/second", "1/second"), at=at, mlflow=None)
    assert {"tuning.example.org", "a", "b", "localhost"} <= set(settings.allowed_hosts)
    assert settings.is_secure
    assert (tmp_path / "service.key").read_bytes() == settings.signing_key


def test_token_of_whoever_started_it_may_do_everything(monkeypatch):
    monkeypatch.setenv("LOGNAME", "d'Artagnan, père")
    token = _own_token()
    assert token.scopes == ("read", "tune", "review")
    assert token.name == "d-Artagnan--p-re"


@pytest.mark.parametrize("login", ["autotune", None])
def test_whoever_started_it_without_a_name_of_a_person_is_the_owner(monkeypatch, login):
    def name():
        if login is None:
            raise KeyError("getpwuid(): uid not found: 4242")
        return login

    monkeypatch.setattr("getpass.getuser", name)
    assert _own_token().name == "owner"
