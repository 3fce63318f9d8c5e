"""What every registry promises of tokens and of changes, over SQLite and a real PostgreSQL."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_values import START, decision, facts

from autotune.errors import RegistryError, SpecError
from autotune.registry import open_registry
from autotune.registry.rows import microseconds, time_of
from autotune.spec import AccessToken, LoaderConfig


@pytest.fixture(params=["sqlite", "postgresql"])
def registry(request, tmp_path):
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").new_database()
    with open_registry(tmp_path, url, wait_s=10) as opened:
        yield opened


def _token(name="a", minute=0, **changes):
    fields = {"name": name, "scopes": ("read", "tune"), "created_at": START + timedelta(minutes=minute), **changes}
    return AccessToken(**fields)


def test_token_comes_back_as_it_was_by_its_digest(registry):
    second = _token("b", 1, scopes=("review",), expires_at=START + timedelta(days=1, microseconds=1))
    registry.add_token("d2", second)
    registry.add_token("d1", _token())
    assert dict(registry.changes().tokens) == {"d1": _token(), "d2": second}
    assert registry.tokens() == [_token(), second]


@pytest.mark.parametrize(("digest", "name"), [("d2", "a"), ("d1", "b")])
def test_name_and_digest_of_a_token_are_its_own(registry, digest, name):
    registry.add_token("d1", _token())
    with pytest.raises(SpecError, match=name):
        registry.add_token(digest, _token(name))
    assert registry.tokens() == [_token()]


def test_token_is_revoked_once_and_its_time_stays(registry):
    registry.add_token("d1", _token())
    at = START + timedelta(hours=1)
    registry.revoke_token("a", at=at)
    registry.revoke_token("a", at=at + timedelta(hours=1))
    (found,) = registry.tokens()
    assert found.revoked_at == at
    assert not found.opens("read", at=at)
    with pytest.raises(SpecError, match="there are: a"):
        registry.revoke_token("b", at=at)


def test_changes_name_the_datasets_that_something_happened_to_since(registry):
    assert (registry.changes().newest_event, registry.changes().changed) == (0, {})
    registry.save_decision(decision())
    first = registry.changes()
    assert dict(first.changed) == {"pack.Data": first.newest_event}
    assert registry.changes(first.newest_event).changed == {}
    waiting = decision(minute=1, config=LoaderConfig(num_workers=3))
    registry.save_decision(decision(study="t", dataset=facts(type_name="pack.Other")))
    registry.save_decision(waiting, promotion="review")
    second = registry.changes(first.newest_event)
    assert set(second.changed) == {"pack.Other", "pack.Data"}
    assert max(second.changed.values()) == second.newest_event
    version = registry.deployment_of(waiting.key).version
    registry.approve(waiting.key, actor="p", expected_version=version)
    assert set(registry.changes(second.newest_event).changed) == {"pack.Data"}


def test_damaged_scopes_are_told_as_damage(tmp_path):
    with open_registry(tmp_path) as registry:
        registry.add_token("d1", _token())
        with registry._engine.begin() as connection:
            connection.exec_driver_sql("UPDATE access_tokens SET scopes = 'nonsense'")
        with pytest.raises(RegistryError, match="cannot be read"):
            registry.changes()


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)))  # noqa: DTZ001
def test_time_comes_back_to_the_microsecond(time):
    aware = time.replace(tzinfo=UTC)
    assert time_of(microseconds(aware)) == aware


@given(st.sets(st.sampled_from(["read", "tune", "review"]), min_size=1), st.integers(-5, 5), st.integers(-5, 5))
def test_token_opens_what_it_names_until_it_expires_or_is_revoked(scopes, expires_min, now_min):
    now = START + timedelta(minutes=now_min)
    token = _token(scopes=tuple(sorted(scopes)), expires_at=START + timedelta(minutes=expires_min))
    for scope in ("read", "tune", "review"):
        assert token.opens(scope, at=now) == (scope in scopes and now_min < expires_min)
        assert not token.replace(revoked_at=START).opens(scope, at=now)
