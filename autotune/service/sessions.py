"""The cookie of somebody who has logged in: it names a token, signed, and opens nothing that the token does not."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.responses import Response

from autotune.errors import SpecError

COOKIE = "autotune_session"
SESSION_AGE_S = 7 * 24 * 3600
"""A login is asked for anew each week; a token that is revoked or expires ends it at once."""
KEY_BYTES = 32
_SALT = "autotune session"


def signing_key(folder: Path) -> bytes:
    """Give the key that cookies are signed with, made and kept where there is none: logins outlive the process.

    Args:
        folder: Folder of results.

    Raises:
        SpecError: It cannot be kept, or what is there is no key.
    """
    path = folder / "service.key"
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise SpecError(f"{path} must be a file that can be written, got {error.strerror or error}") from error
    if len(key) != KEY_BYTES:
        raise SpecError(f"{path} must hold {KEY_BYTES} bytes, got {len(key)}; remove it, and everybody logs in anew")
    return key


def _make(path: Path) -> None:
    """Write a key whole, for its owner alone; of two that do so at once the first one counts."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()


class Sessions:
    """Writes and reads the cookie.

    Args:
        key: What it is signed with.
        secure: Whether browsers send it over TLS alone.
    """

    def __init__(self, key: bytes, *, secure: bool) -> None:
        self._serializer = URLSafeTimedSerializer(key, _SALT, signer_kwargs={"digest_method": hashlib.sha256})
        self._secure = secure

    def begin(self, response: Response, digest: str) -> None:
        """Have the browser keep who has logged in.

        Args:
            response: What goes to the browser.
            digest: SHA-256 of the token.
        """
        response.set_cookie(
            COOKIE,
            str(self._serializer.dumps(digest)),
            max_age=SESSION_AGE_S,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="strict",
        )

    def end(self, response: Response) -> None:
        """Have the browser forget it."""
        response.delete_cookie(COOKIE, path="/", secure=self._secure, httponly=True, samesite="strict")

    def digest(self, cookie: str | None) -> str | None:
        """Give the SHA-256 of the token that a cookie names; None where it was not signed here, or is too old."""
        try:
            found = self._serializer.loads(cookie or "", max_age=SESSION_AGE_S)
        except BadData:
            return None
        return found if isinstance(found, str) else None
