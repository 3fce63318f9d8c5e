"""Who sits at the terminal."""

from __future__ import annotations

import getpass


def login_name() -> str | None:
    """Give the login name; None where this user has none, as in many a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None
