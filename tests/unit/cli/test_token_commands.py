"""`autotune token` and the options of `autotune serve`."""

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from autotune.cli import app
from autotune.errors import MissingExtraError, SpecError
from autotune.registry import open_registry
from autotune.service.tokens import digest_of


def _run(home, *words):
    return CliRunner().invoke(app, [*words, "--home", str(home)])


def test_token_is_printed_once_and_kept_as_its_digest_alone(tmp_path):
    done = _run(tmp_path, "token", "create", "training", "--scope", "read", "--scope", "tune", "--expires", "90d")
    assert done.exit_code == 0
    token = done.stdout.strip()
    assert len(token) == 43
    assert "read, tune" in done.stderr
    with open_registry(tmp_path) as registry:
        known = registry.changes().tokens
    (digest,) = known
    assert digest == digest_of(token)
    assert known[digest].scopes == ("read", "tune")
    assert 89 <= (known[digest].expires_at - datetime.now(UTC)).days <= 90
    assert token.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())


def test_tokens_are_listed_with_their_state_and_revoked_by_name(tmp_path):
    made = json.loads(_run(tmp_path, "token", "create", "a", "--json").stdout)
    assert (made["name"], made["scopes"]) == ("a", ["read"])
    _run(tmp_path, "token", "create", "b", "--expires", "never")
    assert _run(tmp_path, "token", "revoke", "a").exit_code == 0
    assert _run(tmp_path, "token", "revoke", "a", "--json").exit_code == 0
    listed = json.loads(_run(tmp_path, "token", "list", "--json").stdout)["tokens"]
    assert {one["name"]: one["state"] for one in listed} == {"a": "revoked", "b": "open"}
    assert "token" not in listed[0]
    shown = _run(tmp_path, "token", "list").stdout
    assert "revoked" in shown
    assert "never" in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("create", "a b"), "name"),
        (("create", ""), "name"),
        (("create", "autotune"), "no person decided"),
        (("create", "a", "--scope", "write"), "scope"),
        (("create", "a", "--expires", "soon"), "duration"),
        (("create", "a", "--expires", "99999999d"), "3650d"),
        (("revoke", "nobody"), "nobody"),
    ],
)
def test_senseless_tokens_are_refused(tmp_path, words, told):
    done = _run(tmp_path, "token", *words)
    assert isinstance(done.exception, SpecError)
    assert told in str(done.exception)


def test_name_of_a_token_is_used_once_even_after_it_was_revoked(tmp_path):
    _run(tmp_path, "token", "create", "a")
    _run(tmp_path, "token", "revoke", "a")
    done = _run(tmp_path, "token", "create", "a")
    assert isinstance(done.exception, SpecError)
    assert "taken" in str(done.exception)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--studies", "/nowhere"), "--studies"),
        (("--rate", "many"), "rate"),
        (("--changes", "many"), "rate"),
        (("--host", "256.1.1.1"), "--port"),
    ],
)
def test_service_with_senseless_options_does_not_start(tmp_path, words, told):
    done = _run(tmp_path, "serve", "--port", "0", *words)
    assert isinstance(done.exception, SpecError)
    assert told in str(done.exception)


def test_service_without_its_packages_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("autotune.cli.serve._PACKAGES", ("fastapi", "no_such_package"))
    done = _run(tmp_path, "serve")
    assert isinstance(done.exception, MissingExtraError)
    assert "[service]" in str(done.exception)
