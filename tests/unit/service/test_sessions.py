"""The cookie of a login, and the key that it is signed with."""

import stat
import threading
import time

import pytest
from itsdangerous import TimestampSigner
from starlette.responses import Response

from autotune.errors import SpecError
from autotune.service.sessions import COOKIE, KEY_BYTES, SESSION_AGE_S, Sessions, signing_key

DIGEST = "a" * 64
KEY = b"k" * KEY_BYTES


def cookie_of(sessions):
    response = Response()
    sessions.begin(response, DIGEST)
    return response.headers["set-cookie"]


def value_of(cookie):
    return cookie.partition(f"{COOKIE}=")[2].partition(";")[0]


class _Earlier(TimestampSigner):
    def get_timestamp(self):
        return int(time.time()) - SESSION_AGE_S - 10


def test_cookie_names_the_token_to_whoever_has_the_key_alone():
    value = value_of(cookie_of(Sessions(KEY, secure=False)))
    assert Sessions(KEY, secure=False).digest(value) == DIGEST
    assert Sessions(b"x" * KEY_BYTES, secure=False).digest(value) is None
    for changed in ("", None, "x", value[:-1], value[1:], value.replace(".", "", 1), "é"):
        assert Sessions(KEY, secure=False).digest(changed) is None


def test_old_cookie_counts_no_more():
    sessions = Sessions(KEY, secure=False)
    sessions._serializer.signer = _Earlier
    assert Sessions(KEY, secure=False).digest(value_of(cookie_of(sessions))) is None


def test_signed_values_of_other_kinds_name_nobody():
    sessions = Sessions(KEY, secure=False)
    assert sessions.digest(sessions._serializer.dumps(["list"])) is None


@pytest.mark.parametrize("secure", [True, False])
def test_cookie_is_for_tls_alone_where_people_come_by_it(secure):
    assert ("Secure" in cookie_of(Sessions(KEY, secure=secure))) == secure


def test_key_is_made_once_and_for_its_owner_alone(tmp_path):
    key = signing_key(tmp_path)
    assert len(key) == KEY_BYTES
    assert signing_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / "service.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["service.key"]


def test_all_who_make_a_key_at_once_have_the_same(tmp_path):
    found, barrier = [], threading.Barrier(8)

    def make():
        barrier.wait()
        found.append(signing_key(tmp_path))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


def test_damaged_key_is_refused(tmp_path):
    (tmp_path / "service.key").write_bytes(b"short")
    with pytest.raises(SpecError, match="must hold 32 bytes, got 5"):
        signing_key(tmp_path)
