"""Making tokens, and what is kept of them; needs nothing of the service."""

from __future__ import annotations

import hashlib
import secrets

TOKEN_BYTES = 32
"""256 bits: nobody guesses them, so a fast hash is enough to keep them by."""


def new_token() -> str:
    """Draw a token, as 43 characters that fit into a header and a cookie."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def digest_of(token: str) -> str:
    """Give the SHA-256 of a token, by which the registry knows it."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
