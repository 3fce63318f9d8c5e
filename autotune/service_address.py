"""Where the service's pages are, for those who link to them."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from autotune.errors import SpecError

URL_VARIABLE = "AUTOTUNE_URL"
"""Environment variable with the address of the service."""


def service_address(environ: Mapping[str, str]) -> str | None:
    """Give the address of the service that the environment names, without a slash at its end; None without.

    Raises:
        SpecError: It is no address of a web server.
    """
    address = environ.get(URL_VARIABLE, "").strip().rstrip("/")
    if not address:
        return None
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecError(f"{URL_VARIABLE} is an address such as https://tuning.example.org, got {address!r}")
    return address


def decision_page(address: str, key: str) -> str:
    """Give the address of a decision's page."""
    return f"{address}/decisions/{quote(key, safe='')}"
